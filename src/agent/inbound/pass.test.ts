// DESIGN 15: an application that trusts loopback must not see the whole cluster come from there.
import { createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { CallerDialer } from "#agent/kept-callers.ts";
import { AppAddresses, plainAddress } from "./app-addresses.ts";
import { AppDialer } from "./pass.ts";

const never = new AbortController().signal;
const open: Server[] = [];
afterEach(() => {
  for (const server of open.splice(0)) server.close();
});
async function listen(host: string, port = 0): Promise<number> {
  const server = createServer((socket) => socket.on("error", () => undefined).resume());
  open.push(server);
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  return (server.address() as AddressInfo).port;
}

describe("AppDialer", () => {
  test("prefers the address that the caller reached, then the pod's others, loopback last", () => {
    const addresses = new AppAddresses(["10.0.0.1", "fd00::1"], new FakeClock());
    expect(addresses.candidates("::ffff:10.0.0.1")).toEqual(["10.0.0.1", "fd00::1", "127.0.0.1", "::1"]);
    expect(addresses.candidates("fd00::1")).toEqual(["fd00::1", "10.0.0.1", "127.0.0.1", "::1"]);
    expect(addresses.candidates("127.0.0.1")).toEqual(["10.0.0.1", "fd00::1", "127.0.0.1", "::1"]);
    expect(addresses.candidates(undefined)).toEqual(["10.0.0.1", "fd00::1", "127.0.0.1", "::1"]);
  });

  test("dials loopback only when the pod's address refuses, and looks again after a while", async () => {
    const clock = new FakeClock();
    const port = await listen("127.0.0.1");
    const dialer = new AppDialer({ podIps: ["127.0.0.5"], containerPort: port, clock });
    const first = await dialer.dial(undefined, never);
    expect(first.remoteAddress).toBe("127.0.0.1");
    first.destroy();
    await listen("127.0.0.5", port);
    // Callers that keep coming must not have it dialled there for ever.
    await clock.advance(3000);
    const between = await dialer.dial(undefined, never);
    expect(between.remoteAddress).toBe("127.0.0.1");
    between.destroy();
    await clock.advance(3000);
    const second = await dialer.dial(undefined, never);
    expect(second.remoteAddress).toBe("127.0.0.5");
    second.destroy();
  });

  test("dials in the caller's name where that is possible, but never loopback", async () => {
    const port = await listen("127.0.0.1");
    const dialled: string[] = [];
    const dialer: CallerDialer = {
      obstacle: undefined,
      connect: (caller, application) => {
        dialled.push(`${caller.address}:${caller.port} to ${application.address}`);
        return Promise.resolve(undefined);
      },
    };
    const app = new AppDialer({ podIps: ["127.0.0.5", "127.0.0.6"], containerPort: port, clock: new FakeClock() });
    const as = { caller: { address: "10.9.9.9", port: 4000 }, dialer };
    const socket = await app.dial("127.0.0.6", never, as);
    expect(socket.remoteAddress).toBe("127.0.0.1");
    expect(dialled).toEqual(["10.9.9.9:4000 to 127.0.0.6", "10.9.9.9:4000 to 127.0.0.5"]);
    socket.destroy();
    const again = await app.dial("127.0.0.6", never, as);
    expect(again.remoteAddress).toBe("127.0.0.1");
    expect(dialled).toHaveLength(2);
    again.destroy();
  });

  test("refuses when nobody listens, and leaves no timer behind", async () => {
    const clock = new FakeClock();
    const port = await listen("127.0.0.1");
    await new Promise((resolve) => open.pop()?.close(resolve));
    const dialer = new AppDialer({ podIps: ["127.0.0.5"], containerPort: port, clock });
    await expect(dialer.dial(undefined, never)).rejects.toMatchObject({ code: "refused" });
    expect(clock.pending).toBe(0);
  });
});

describe("plainAddress()", () => {
  test.each([
    ["::ffff:10.0.0.1", "10.0.0.1"],
    ["::FFFF:10.0.0.1", "10.0.0.1"],
    ["fd00::1", "fd00::1"],
    ["10.0.0.1", "10.0.0.1"],
  ])("%s is %s", (address, expected) => {
    expect(plainAddress(address)).toBe(expected);
  });
});
