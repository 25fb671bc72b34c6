import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { Attachments, type AttachablePod } from "./attachments.ts";

interface Lab extends AsyncDisposable {
  readonly clock: FakeClock;
  readonly attachments: Attachments<AttachablePod>;
  readonly attached: string[];
  failWith: AppError | undefined;
}

function lab(): Lab {
  const clock = new FakeClock();
  const attached: string[] = [];
  const attachments = new Attachments<AttachablePod>({
    attach: ({ name }) => {
      attached.push(name);
      return made.failWith === undefined ? Promise.resolve() : Promise.reject(made.failWith);
    },
    clock,
    log: silentLogger,
    onChange: () => undefined,
  });
  const made: Lab = {
    clock,
    attachments,
    attached,
    failWith: undefined,
    [Symbol.asyncDispose]: () => attachments[Symbol.asyncDispose](),
  };
  return made;
}

const bare = (name: string): { name: string; uid: string; wantsAgent: boolean } => ({
  name,
  uid: name,
  wantsAgent: true,
});
const served = (name: string): { name: string; uid: string; wantsAgent: boolean } => ({
  ...bare(name),
  wantsAgent: false,
});

describe("Attachments", () => {
  test("attach once to each pod that has no agent, at once", async () => {
    await using it = lab();
    it.attachments.setPods([bare("a"), served("b")]);
    it.attachments.setPods([bare("a"), served("b"), bare("c")]);
    await it.clock.advance(0);
    expect(it.attached).toEqual(["a", "c"]);
    it.attachments.setPods([served("a"), served("b"), served("c")]);
    await it.clock.advance(10_000);
    expect(it.attached).toEqual(["a", "c"]);
  });

  test("attach again when an agent has ended, but not for ever", async () => {
    await using it = lab();
    for (let round = 0; round < 6; round += 1) {
      it.attachments.setPods([bare("a")]);
      await it.clock.advance(0);
      it.attachments.setPods([served("a")]);
      await it.clock.advance(10_000);
    }
    expect(it.attached).toHaveLength(3);
  });

  test("try again after a failure and tell it meanwhile", async () => {
    await using it = lab();
    it.failWith = new AppError("forbidden", "quota");
    it.attachments.setPods([bare("a")]);
    await it.clock.advance(100);
    expect(it.attachments.failure?.message).toBe("quota");
    expect(it.attached).toHaveLength(1);
    it.failWith = undefined;
    await it.clock.advance(200);
    expect(it.attached).toHaveLength(2);
    expect(it.attachments.failure).toBeUndefined();
  });

  test("say nothing of a pod that went away", async () => {
    await using it = lab();
    it.failWith = new AppError("not_found", "gone");
    it.attachments.setPods([bare("a")]);
    await it.clock.advance(100);
    expect(it.attachments.failure).toBeUndefined();
  });

  test("leave no timer behind", async () => {
    const it = lab();
    it.attachments.setPods([bare("a")]);
    await it.clock.advance(0);
    await it[Symbol.asyncDispose]();
    expect(it.clock.pending).toBe(0);
  });
});
