// The agent's door and the kernel's word: a process of another container of the pod has the same network, so it finds the
// socket, but other mounts. `unshare --mount` makes such a process.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openContainerDoor } from "#agent/container-door.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";

const program = join(import.meta.dirname, "revoking-program.ts");

test("only a process with the agent's own mounts is heard", async () => {
  const name = `telepresence-test-${randomUUID()}`;
  const revoked: string[] = [];
  const revoke = ({ by }: { readonly by: string }): Promise<void> => Promise.resolve(void revoked.push(by));
  await using _door = await openContainerDoor({ name, revoke, clock: systemClock, log: silentLogger });
  const ask = async (by: string, manners: string, ...before: readonly string[]): Promise<unknown> => {
    const [file, ...words] = [...before, process.execPath, program, name, by, manners];
    return JSON.parse((await promisify(execFile)(file, words)).stdout);
  };
  expect(await ask("inside", "polite")).toEqual({});
  const outside = ["unshare", "--mount"];
  const refused = { code: "denied", message: "this program is not of the traffic-agent's container" };
  expect(await ask("outside", "rude", ...outside)).toEqual({ error: refused });
  // Nor does the program tell a stranger who listens in the agent's place.
  const stranger = { code: "denied", message: "a program of another container listens in the traffic-agent's place" };
  expect(await ask("outside", "polite", ...outside)).toEqual({ error: stranger });
  expect(revoked).toEqual(["inside"]);
});
