// The end of a connection to the cluster: every program with a connection into it learns so, at once where it is closed,
// in seconds where it is lost, over a real device and the real kernel's TCP. The lab is outbound.test.ts's; each test has
// its own, as each ends it.
//
// Stories: of 9,900 connections that were cut at once the device's queue dropped most of the kernel's resets, and
// programs waited on. Cut in parts, whose resets were waited for, a busy machine still lost 50 and 185 of 1,200.
import { describe, expect, test } from "vitest";
import { startOutboundProcesses, type OutboundProcesses } from "./outbound-processes.ts";
import { services } from "./outbound-services.ts";

const hosts = { v4: "10.96.0.10", v6: "fd00:96::a" } as const;
type Program = OutboundProcesses["program"];

/** Half of them over each family. */
async function openCrowd(program: Program, count: number, port: number = services.crowd): Promise<void> {
  for (const host of Object.values(hosts)) await program.openMany({ host, port }, count / 2);
}

/** Until all are sent that find room anywhere on the way. */
async function untilFloodStops(lab: OutboundProcesses["lab"]): Promise<void> {
  let last = -1;
  const unchanged = async (): Promise<boolean> => {
    const { flooded } = await lab.counts();
    const same = flooded > 0 && flooded === last;
    last = flooded;
    return same;
  };
  await expect.poll(unchanged, { interval: 500, timeout: 20_000 }).toBe(true);
}

/** chosen: a daemon that is told to quit has 10 s, of which this may take half. */
const limitMs = 5000;

describe("close() resets all that stand, so that no program waits for a device that is gone:", () => {
  test.each([
    [1200, 1000],
    [1200, 10],
    [5000, 1000],
    [5000, 10],
  ])("%i connections over a device whose queue holds %i packets", { timeout: 60_000 }, async (count, queue) => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, count);
    await lab.run("ip", "link", "set", "tel0", "txqueuelen", String(queue));
    const started = performance.now();
    await lab.close();
    await expect.poll(() => program.ends(), { timeout: limitMs }).toEqual({ ECONNRESET: count });
    expect(performance.now() - started).toBeLessThan(limitMs);
  });

  test("with bytes on their way in both directions", { timeout: 60_000 }, async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, 100, services.flood);
    await program.all("read");
    await program.all("flood");
    await expect.poll(async () => (await lab.counts()).flooded, { timeout: 20_000 }).toBeGreaterThan(50_000_000);
    await lab.close();
    await expect.poll(() => program.ends(), { timeout: limitMs }).toEqual({ ECONNRESET: 100 });
  });

  test("with bytes that the program has not read, and reads afterwards", { timeout: 60_000 }, async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, 20, services.flood);
    await untilFloodStops(lab);
    await lab.close();
    await program.all("read");
    await expect.poll(() => program.ends(), { timeout: limitMs }).toEqual({ ECONNRESET: 20 });
  });

  test("where the program has ended its half, and waits for the answer", async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, 100, services.silent);
    await program.all("end");
    await expect.poll(async () => (await lab.counts()).endedBySilent).toBe(100);
    await lab.close();
    await expect.poll(() => program.ends(), { timeout: limitMs }).toEqual({ ECONNRESET: 100 });
  });

  test("where the far end has ended its half: the program's next bytes are an error", async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, 4, services.sendFirst);
    await program.all("read");
    await expect.poll(() => program.ended(), { timeout: 20_000 }).toBe(4);
    await lab.close();
    await program.all("write");
    await expect.poll(() => program.ends(), { timeout: limitMs }).toEqual({ EPIPE: 4 });
  });

  test("those that are only asked for are refused", async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    const asked = Object.values(hosts).map((host) => program.attempt({ host, port: services.blackHole }, limitMs));
    await expect.poll(async () => (await lab.stats()).tcpHeld).toBe(2);
    await lab.close();
    expect((await Promise.all(asked)).map(({ outcome }) => outcome)).toEqual(["ECONNREFUSED", "ECONNREFUSED"]);
  });
});

// Story: sockets that end together have the kernel send resets together, and those beyond the device's queue were lost.
describe("a session that is lost resets its connections:", () => {
  test.each([
    [1200, 10],
    [5000, 1000],
  ])("%i over a device whose queue holds %i packets", { timeout: 60_000 }, async (count, queue) => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, count);
    await lab.run("ip", "link", "set", "tel0", "txqueuelen", String(queue));
    await lab.dropSession();
    await expect.poll(() => program.ends(), { timeout: 20_000 }).toEqual({ ECONNRESET: count });
  });

  test("with bytes that the program has not read, and reads afterwards", { timeout: 60_000 }, async () => {
    await using processes = await startOutboundProcesses();
    const { lab, program } = processes;
    await openCrowd(program, 20, services.flood);
    await untilFloodStops(lab);
    await lab.dropSession();
    await program.all("read");
    await expect.poll(() => program.ends(), { timeout: 20_000 }).toEqual({ ECONNRESET: 20 });
  });
});
