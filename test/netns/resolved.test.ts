// The hook into the real systemd-resolved, with a message bus of its own, on the laptop of laptop.ts.
//
//   program → 127.0.0.53 (resolved) ─┬─ our names ──→ 246.246.0.1 (our DNS server, on the device)
//                                    └─ the rest ───→ 192.0.2.53 (link settings of eth0, as NetworkManager makes them)
//
// Story: links of resolved kept their settings after a crash (trap 8).
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { Helper, HelperDoor } from "#daemon/helper-client.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import { Laptop, nameservers } from "./laptop.ts";
import type { HelperProcess } from "./laptop.ts";
import { busConfig, resolvedUser, unpackResolved } from "./unpacked-resolved.ts";

const unpacked = unpackResolved();
const outside = "198.51.100.1";
const ours = "10.96.0.7";

let laptop: Laptop;
let door: HelperDoor | undefined;
let helper: Helper;
let helperProcess: HelperProcess;
let device: PacketDevice | undefined;
let name: string;

describe.skipIf(unpacked === undefined)("systemd-resolved", () => {
  beforeEach(async () => {
    laptop = new Laptop();
    await startResolved(laptop, unpacked ?? "");
    await laptop.fixture("lan", "dns-server.ts", [outside, "53", ...nameservers]);
    const path = `${laptop.directory}/helper.sock`;
    door = await openHelperDoor({ path, clock: systemClock, log: silentLogger });
    await openDevice();
    await laptop.fixture("laptop", "dns-server.ts", [ours, "5353", "246.246.0.1"]);
  });
  afterEach(async () => {
    device?.close();
    await door?.[Symbol.asyncDispose]();
    await laptop[Symbol.asyncDispose]();
  });

  const hook = {
    mode: "resolved",
    server: "246.246.0.1",
    port: 5353,
    domains: ["cluster.local", "svc", "default"],
    search: ["default.svc.cluster.local"],
  } as const;
  const hookDns = (): Promise<void> =>
    helper.hookDns({ ...hook, domains: [...hook.domains], search: [...hook.search] });

  test("our names come to us, the rest goes where it went, and unhooking ends it", async () => {
    expect(lookUp("hello.default")).toBe(outside);
    await hookDns();
    for (const ourName of ["hello.default", "hello.default.svc", "a.b.svc.cluster.local"]) {
      expect(lookUp(ourName)).toBe(ours);
    }
    expect(lookUp("www.example.com")).toBe(outside);
    await helper.unhookDns();
    expect(laptop.run(["resolvectl", "domain", name])).not.toContain("cluster.local");
    expect(lookUp("hello.default")).toBe(outside);
  });

  test("a name without a dot finds the connected namespace", async () => {
    await hookDns();
    expect(laptop.run(["resolvectl", "query", "--legend=no", "hello"])).toContain(ours);
    const stub = readFileSync(join(laptop.directory, "systemd", "resolve", "stub-resolv.conf"), "utf8");
    expect(stub).toMatch(/^search .*default\.svc\.cluster\.local/m);
  });

  test("killing the helper, and so losing the device, leaves resolved as it was", async () => {
    const before = laptop.run(["resolvectl", "status", "--no-pager"]);
    device?.close();
    await helper.close();
    await helperProcess.ended;
    await openDevice();
    await hookDns();
    expect(laptop.run(["resolvectl", "status", "--no-pager"])).toContain("cluster.local");
    const lost = new Promise<void>((resolve) => helper.onLost(() => resolve()));
    helperProcess.child.kill("SIGKILL");
    await lost;
    device?.close();
    const withoutDevice = (text: string): string => text.replace(/\n*Link \d+ \(tel0\)[^]*?(?=\nLink |$)/, "").trim();
    await expect.poll(() => laptop.run(["resolvectl", "status", "--no-pager"]).trim()).toBe(withoutDevice(before));
    expect(lookUp("hello.default")).toBe(outside);
  });

  test("a server that is somewhere else, and names that are none, are refused", async () => {
    const wrong = { ...hook, domains: [...hook.domains], search: [...hook.search] };
    await expect(helper.hookDns({ ...wrong, server: "192.0.2.66" })).rejects.toThrow("neither on the device nor on");
    await expect(helper.hookDns({ ...wrong, domains: ["--help"] })).rejects.toThrow("is no domain name");
    await expect(helper.hookDns({ ...wrong, search: ["a b"] })).rejects.toThrow("is no domain name");
  });
});

async function openDevice(): Promise<void> {
  helperProcess = await laptop.startHelper(`${laptop.directory}/helper.sock`);
  const opened = await door?.wait(new AbortController().signal);
  if (opened === undefined) throw new Error("no helper came");
  helper = opened;
  ({ device, name } = await helper.openDevice({ addresses: ["246.246.0.1/29"], mtu: 1500 }));
}

function lookUp(host: string): string {
  return laptop.run(["dig", "+short", "+tries=1", "+time=3", "@127.0.0.53", host]).trim();
}

/** The bus and resolved, in directories of the test's own that every program inside sees at the usual places. */
async function startResolved(where: Laptop, folder: string): Promise<void> {
  const { directory } = where;
  for (const each of ["dbus", "systemd", "systemd/resolve"]) mkdirSync(join(directory, each));
  chmodSync(directory, 0o755);
  chownSync(join(directory, "systemd/resolve"), resolvedUser, resolvedUser);
  writeFileSync(join(directory, "bus.conf"), busConfig);
  writeFileSync(join(directory, "resolv.conf"), "nameserver 127.0.0.53\noptions edns0\n");
  for (const [file, line] of [
    ["passwd", `systemd-resolve:x:${resolvedUser}:${resolvedUser}::/:/usr/sbin/nologin\n`],
    ["group", `systemd-resolve:x:${resolvedUser}:\n`],
  ] as const) {
    const others = readFileSync(`/etc/${file}`, "utf8").replace(/^systemd-resolve:.*\n/m, "");
    writeFileSync(join(directory, file), others + line);
  }
  where.prepare = [
    "mount -t tmpfs none /run",
    "mkdir -p /run/dbus /run/systemd",
    ...["dbus", "systemd"].map((each) => `mount --bind ${join(directory, each)} /run/${each}`),
    ...["passwd", "group"].map((each) => `mount --bind ${join(directory, each)} /etc/${each}`),
    `export PATH=${join(folder, "usr/bin")}:$PATH`,
  ].join(" && ");
  where.start("laptop", ["dbus-daemon", "--nofork", `--config-file=${join(directory, "bus.conf")}`], "ignore");
  await expect.poll(() => existsSync(join(directory, "dbus", "system_bus_socket"))).toBe(true);
  where.start("laptop", [join(folder, "lib/systemd/systemd-resolved")], "ignore");
  await expect.poll(() => quietly(() => where.run(["resolvectl", "dns"])), { timeout: 10_000 }).toContain("eth0");
  where.run(["resolvectl", "dns", "eth0", nameservers[0]]);
  where.run(["resolvectl", "domain", "eth0", "~."]);
}

function quietly(run: () => string): string {
  try {
    return run();
  } catch {
    return ""; // not up yet
  }
}
