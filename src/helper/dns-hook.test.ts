import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { parsePrefix } from "#packet/address.ts";
import type { DnsHook } from "#wire/helper.ts";
import { openDnsHook } from "./dns-hook.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "resolvectl-"));
  vi.stubEnv("PATH", `${directory}:${process.env["PATH"] ?? ""}`);
  vi.stubEnv("SUDO_UID", undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true });
});

// Seven programs of up to 3 s each outlasted the daemon's 15 s for a call: it hung up, and the session was gone.
test("a systemd-resolved that is slow at each setting fails the hook within the daemon's patience", async () => {
  const calls = join(directory, "calls");
  const program = join(directory, "resolvectl");
  // Each call ends when the test has made a file of its number.
  const script = `echo "$@" >> ${calls}; n=$(wc -l < ${calls}); until [ -e ${directory}/go.$n ]; do sleep 0.01; done`;
  writeFileSync(program, `#!/bin/sh\n${script}\n`);
  chmodSync(program, 0o755);
  const seen = (): number => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n").length : 0);

  const clock = new FakeClock();
  const network = parsePrefix("246.246.0.0/29");
  const device = { name: "tel0", slot: 0, index: 1, networks: network === undefined ? [] : [network] };
  const hook: DnsHook = { mode: "resolved", server: "246.246.0.1", port: 53, domains: ["cluster.local"] };
  let outcome: unknown;
  void openDnsHook(hook, { device, uid: 0, clock }).then(
    () => (outcome = "opened"),
    (error: unknown) => (outcome = error),
  );
  await vi.waitUntil(() => seen() === 1);
  for (let call = 1; outcome === undefined; call++) {
    await clock.advance(2500);
    writeFileSync(join(directory, `go.${call}`), "");
    await vi.waitUntil(() => outcome !== undefined || seen() > call);
  }
  expect(String(outcome)).toContain("did not take the device's DNS settings: giving systemd-resolved");
  expect(clock.now()).toBeLessThan(15_000);
  expect(clock.pending).toBe(0);
});
