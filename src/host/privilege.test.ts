import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { sudoHasBegun } from "./privilege.ts";

// sudo waits as the parent of what it runs, and its own command line ends with the words of the command.
test("sudo has begun once the command itself runs below it", async () => {
  const script = "read go; sleep 100 & wait";
  const sudo = spawn("sh", ["-c", script, "sleep", "100"], { argv0: "/usr/bin/sudo", stdio: "pipe", detached: true });
  await once(sudo, "spawn");
  const pid = sudo.pid ?? 0;
  const isSleep = (words: readonly string[]): boolean => words.includes("sleep") && words.includes("100");
  expect(sudoHasBegun(pid, isSleep)).toBe(false);
  sudo.stdin.write("go\n");
  await expect.poll(() => sudoHasBegun(pid, isSleep)).toBe(true);
  process.kill(-pid);
  await once(sudo, "exit");
  expect(sudoHasBegun(pid, isSleep)).toBe(false);
});
