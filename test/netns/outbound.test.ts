// Outbound over a real device and the real kernel's TCP.
//
//   namespace "lab":  program process ──▶ kernel ──▶ tel0 ──▶ lab process: outbound ══ session ══ "cluster" services
//                     246.246.0.1/29, fd00:246::1/64; routes 10.96.0.0/16, fd00:96::/64 ──▶ tel0
//
// Traps of the original: 34 (half-close ended the connection), 35 (no back-pressure), 36 (refused connections hung),
// 38 (a reused source port met the old connection), 39 (one black-holed target delayed all others).
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bulkBytes, makeBulk, services } from "./outbound-services.ts";
import { startOutboundProcesses, type OutboundProcesses } from "./outbound-processes.ts";

let lab: OutboundProcesses["lab"];
let program: OutboundProcesses["program"];
let processes: OutboundProcesses | undefined;

beforeAll(async () => {
  processes = await startOutboundProcesses();
  ({ lab, program } = processes);
});
afterAll(async () => {
  await processes?.[Symbol.asyncDispose]();
});

const hosts = { v4: "10.96.0.10", v6: "fd00:96::a" } as const;
const bulkDigest = createHash("sha256").update(makeBulk()).digest("hex");

describe.each(["v4", "v6"] as const)("over IP%s", (family) => {
  const to = (service: keyof typeof services) => ({ host: hosts[family], port: services[service] });

  test("the self-test passes", async () => {
    await expect(lab.selfTest(family)).resolves.toBeUndefined();
  });

  test("refused is a reset at once, unreachable and denied are errors at once, a black hole stays silent", async () => {
    const refused = await program.attempt(to("refused"), 5000);
    expect(refused.outcome).toBe("ECONNREFUSED");
    expect(refused.ms).toBeLessThan(3000);
    expect((await program.attempt(to("unreachable"), 5000)).outcome).toBe("EHOSTUNREACH");
    expect((await program.attempt(to("denied"), 5000)).outcome).toBe(family === "v4" ? "EHOSTUNREACH" : "EACCES");
    expect((await program.attempt(to("blackHole"), 1500)).outcome).toBe("nothing");
  });

  test("a black-holed target does not delay others", async () => {
    const holes = Array.from({ length: 20 }, () => program.attempt(to("blackHole"), 3000));
    const echo = await program.attempt(to("echo"), 3000);
    expect(echo.outcome).toBe("connected");
    expect(echo.ms).toBeLessThan(2000);
    await Promise.all(holes);
  });

  test("10 MB go both ways at once, byte for byte", async () => {
    const result = await program.exchange(to("echo"), bulkBytes);
    expect(result).toMatchObject({ length: bulkBytes, digest: result.sent });
  });

  test("half-close is kept, whoever ends first", async () => {
    expect(await program.exchange(to("answerAfterEnd"), 1000)).toMatchObject({ length: bulkBytes, digest: bulkDigest });
    const before = (await lab.counts()).receivedBySendFirst;
    expect(await program.readThenSend(to("sendFirst"), 3_000_000)).toEqual({ length: bulkBytes, digest: bulkDigest });
    await expect.poll(async () => (await lab.counts()).receivedBySendFirst - before).toBe(3_000_000);
  });

  test("a reader that does not read brakes the far end", async () => {
    const before = (await lab.counts()).flooded;
    const handle = await program.open(to("flood"));
    const settled = async (): Promise<number> => {
      for (let last = -1; ;) {
        const now = (await lab.counts()).flooded;
        if (now === last) return now - before;
        last = now;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
    };
    expect(await settled()).toBeLessThan(40 * 1024 * 1024);
    expect(await program.readSome(handle, 60_000_000)).toBeGreaterThanOrEqual(60_000_000);
    await program.reset(handle);
  });

  test("resets travel both ways", async () => {
    const theirs = await program.open(to("reset"));
    await program.write(theirs, "x");
    expect(await program.waitForEnd(theirs)).toBe("ECONNRESET");
    const errorsBefore = (await lab.counts()).errors.length;
    const ours = await program.open(to("echo"));
    await program.reset(ours);
    await expect
      .poll(async () => (await lab.counts()).errors.slice(errorsBefore))
      .toContain(`${services.echo}: ECONNRESET`);
  });

  test("what came before a reset is read before it", async () => {
    const asked = Array.from({ length: 20 }, () => program.ask(to("answerThenReset")));
    expect(new Set(await Promise.all(asked))).toEqual(new Set(["enough, ECONNRESET"]));
  });

  test("200 connections at once all get their own bytes", async () => {
    expect(await program.echoMany(to("echo"), 200)).toBe(200);
  });

  test("a source port that was just used connects anew", async () => {
    for (let round = 0; round < 3; round++) {
      const handle = await program.open({ ...to("echo"), localPort: 23_456 });
      await program.reset(handle);
    }
    expect(await program.exchange({ ...to("echo"), localPort: 23_456 }, 1000)).toMatchObject({ length: 1000 });
  });

  test("datagrams go there and back, and a refusal is an error at once", async () => {
    expect(await program.datagrams({ host: hosts[family], port: 53 }, [0, 1, 1200, 60_000])).toEqual([
      0, 1, 1200, 60_000,
    ]);
    expect(await program.datagrams({ host: hosts[family], port: services.udpRefused }, [1])).toBe("ECONNREFUSED");
  });

  test("the first and the last address of a range are as others (trap 16)", async () => {
    const edges = { v4: ["10.96.0.0", "10.96.255.255"], v6: ["fd00:96::", "fd00:96::ffff:ffff:ffff:ffff"] };
    for (const host of edges[family]) {
      expect(await program.exchange({ host, port: services.echo }, 1000)).toMatchObject({ length: 1000 });
      expect(await program.datagrams({ host, port: 53 }, [100])).toEqual([100]);
    }
  });

  test("an echo is the target's own, and why there is none is told", async () => {
    const [alive, silent, noWay, denied] = {
      v4: ["10.96.0.10", "10.96.0.11", "10.96.0.12", "10.96.0.13"],
      v6: ["fd00:96::a", "fd00:96::b", "fd00:96::c", "fd00:96::d"],
    }[family] as [string, string, string, string];
    for (const bytes of [0, 56, 1472, 60_000]) expect(await program.ping(alive, bytes, 3000)).toBe(bytes);
    expect(await program.ping(silent, 56, 500)).toBe("nothing");
    expect(await program.ping(noWay, 56, 3000)).toBe("EHOSTUNREACH");
    expect(await program.ping(denied, 56, 3000)).toBe(family === "v4" ? "EHOSTUNREACH" : "EACCES");
  });

  test("the longest datagrams pass, and one that cannot is an error at once", async () => {
    const to = { host: hosts[family], port: 53 };
    expect(await program.datagrams(to, [65_507])).toEqual([65_507]);
    expect(await program.datagrams(to, [65_508])).toBe("EMSGSIZE");
  });

  test("datagrams longer than the device's MTU are put together again", async () => {
    await lab.run("ip", "link", "set", "tel0", "mtu", "1500");
    expect(await program.datagrams({ host: hosts[family], port: 53 }, [20_000, 40_000])).toEqual([20_000, 40_000]);
    expect(await program.exchange(to("echo"), 1_000_000)).toMatchObject({ length: 1_000_000 });
    // segments are as long as the device takes them
    const handle = await program.open(to("echo"));
    const sockets = await lab.run(
      "ss",
      "-Htnip",
      "state",
      "established",
      "dst",
      family === "v4" ? hosts.v4 : `[${hosts.v6}]`,
    );
    expect(Number(/ mss:(\d+)/.exec(sockets)?.[1])).toBeLessThanOrEqual(1500 - (family === "v4" ? 40 : 60));
    await program.reset(handle);
    expect(await program.ping(hosts[family], 20_000, 3000)).toBe(20_000);
    await lab.run("ip", "link", "set", "tel0", "mtu", "65535");
  });

  test("when the session is lost, connections are reset; new ones wait for the next session, and not for ever", async () => {
    const handle = await program.open(to("echo"));
    await lab.dropSession();
    expect(await program.waitForEnd(handle)).toBe("ECONNRESET");
    const waiting = program.attempt(to("echo"), 5000);
    expect((await program.attempt(to("echo"), 300)).outcome).toBe("nothing");
    await lab.newSession();
    expect((await waiting).outcome).toBe("connected");
    await lab.dropSession();
    const late = await program.attempt(to("echo"), 9000);
    expect(late.outcome).toBe("EHOSTUNREACH");
    expect(late.ms).toBeGreaterThan(4500);
    await lab.newSession();
  });
});

test("10,000 flows of datagrams at once all get their answers", async () => {
  expect(await program.manyFlows(10_000, 5000)).toBe(10_000);
  expect((await lab.stats()).udpFlows).toBeGreaterThanOrEqual(10_000);
});

test("a connection from another address of the laptop works too", async () => {
  const target = { host: hosts.v4, port: services.echo, localAddress: "10.9.9.9" };
  expect(await program.exchange(target, 100_000)).toMatchObject({ length: 100_000 });
});

test("who connects to the listener without having been sent is reset", async () => {
  const [port] = await lab.listenPorts();
  const end = await program.open({ host: "246.246.0.1", port: port! }).then(program.waitForEnd, String);
  expect(end).toContain("ECONNRESET");
  expect((await lab.stats()).tcpStrangers).toBeGreaterThan(0);
});

describe("the self-test names what is in the way:", () => {
  test("a firewall on the device's input", async () => {
    await lab.run(
      "nft",
      "add table inet wall { chain input { type filter hook input priority 0; iifname tel0 drop; }; }",
    );
    await expect(lab.selfTest("v4")).rejects.toThrow(
      "packets that came in on tel0 never reached this machine's own port",
    );
    await lab.run("nft", "delete table inet wall");
    await lab.selfTest("v4");
  });
  test("a firewall on the way to the device", async () => {
    await lab.run(
      "nft",
      "add table inet wall { chain output { type filter hook output priority 0; oifname tel0 drop; }; }",
    );
    await expect(lab.selfTest("v4")).rejects.toThrow("a connection to 246.246.0.3 never reached the device tel0");
    await lab.run("nft", "delete table inet wall");
  });
  test("another route", async () => {
    await lab.run("ip", "route", "add", "246.246.0.3/32", "dev", "lo");
    await expect(lab.selfTest("v4")).rejects.toThrow("traffic for 246.246.0.3 goes to lo, expected tel0");
    await lab.run("ip", "route", "delete", "246.246.0.3/32", "dev", "lo");
  });
});
