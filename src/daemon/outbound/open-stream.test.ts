// Trap 22: after a short loss of the network programs got errors, although a session was back in a second.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { createSessionPair } from "#tunnel/session-pair.fake.ts";
import { sessionHoldMs, StreamOpener, type Detour } from "./open-stream.ts";

const target = { address: "10.96.0.10", port: 80 };
const never = new AbortController().signal;

async function acceptingPair(clock: FakeClock) {
  const pair = await createSessionPair(clock);
  pair.accepter.onIncoming((incoming) => {
    if (incoming.request.kind === "tcp" && incoming.request.target.port === 80) incoming.accept();
    else if (incoming.request.kind === "tcp" && incoming.request.target.port === 81) incoming.reject("refused", "no");
  });
  return pair;
}

describe("StreamOpener", () => {
  test("opens through the session, and passes its refusals on", async () => {
    const clock = new FakeClock();
    await using pair = await acceptingPair(clock);
    const opener = new StreamOpener(clock);
    opener.setSession(pair.opener);
    const stream = await opener.open({ kind: "tcp", target }, never);
    expect(stream.request).toEqual({ kind: "tcp", target });
    await expect(opener.open({ kind: "tcp", target: { ...target, port: 81 } }, never)).rejects.toMatchObject({
      code: "refused",
    });
  });

  test("takes another session for addresses that have one, and never the common one instead", async () => {
    const clock = new FakeClock();
    await using common = await acceptingPair(clock);
    await using other = await createSessionPair(clock);
    other.accepter.onIncoming((incoming) => incoming.reject("unreachable", "by the other way"));
    let tell: Parameters<Detour["follow"]>[0] = () => undefined;
    const detour: Detour = { covers: (address) => address === "127.0.0.1", follow: (onSession) => (tell = onSession) };
    const opener = new StreamOpener(clock, [detour]);
    opener.setSession(common.opener);
    const inPod = { kind: "tcp", target: { address: "127.0.0.1", port: 80 } } as const;
    const held = opener.open(inPod, never);
    held.catch(() => undefined);
    expect((await opener.open({ kind: "tcp", target }, never)).request).toEqual({ kind: "tcp", target });
    tell(other.opener);
    await expect(held).rejects.toMatchObject({ code: "unreachable" });
    tell(undefined);
    const late = opener.open(inPod, never);
    late.catch(() => undefined);
    await clock.advance(sessionHoldMs);
    await expect(late).rejects.toMatchObject({ code: "link_lost" });
  });

  test("waits five seconds for a session and not longer", async () => {
    const clock = new FakeClock();
    const opener = new StreamOpener(clock);
    const late = opener.open({ kind: "tcp", target }, never);
    late.catch(() => undefined);
    await clock.advance(sessionHoldMs - 1);
    const early = opener.open({ kind: "tcp", target }, never);
    await clock.advance(1);
    await expect(late).rejects.toMatchObject({ code: "link_lost" });
    await using pair = await acceptingPair(new FakeClock());
    opener.setSession(pair.opener);
    expect((await early).request.kind).toBe("tcp");
    expect(clock.pending).toBe(0);
  });

  test("asks the next session when the first is lost before it answered", async () => {
    const clock = new FakeClock();
    const first = await acceptingPair(new FakeClock());
    const opener = new StreamOpener(clock);
    opener.setSession(first.opener);
    const unanswered = opener.open({ kind: "tcp", target: { ...target, port: 82 } }, never);
    unanswered.catch(() => undefined);
    await clock.advance(10);
    await first[Symbol.asyncDispose]();
    await clock.advance(10);
    await using second = await createSessionPair(new FakeClock());
    second.accepter.onIncoming((incoming) => incoming.reject("unreachable", "no"));
    opener.setSession(second.opener);
    await expect(unanswered).rejects.toMatchObject({ code: "unreachable" });
  });

  test("ends with the caller's signal", async () => {
    const opener = new StreamOpener(new FakeClock());
    const controller = new AbortController();
    const waiting = opener.open({ kind: "udp", target }, controller.signal);
    controller.abort(new Error("gone"));
    await expect(waiting).rejects.toThrow("gone");
  });
});
