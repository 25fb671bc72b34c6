// Two connections of a user, each with its device, names and routes, beside one another (laptop.ts draws the network).
//
// Story: one that was to be beside the other would have answered for the other's names, and what was production a second
// ago would have been staging.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Laptop, nameservers } from "./laptop.ts";
import type { Fixture, HelperProcess } from "./laptop.ts";

interface Connection {
  readonly daemon: Fixture;
  readonly helper: HelperProcess;
  readonly device: string;
  readonly warnings: readonly string[];
  /** Where programs of `run` have their look-ups answered. */
  readonly programsAsk: { readonly address: string; readonly port: number };
}

const outside = "198.51.100.1";
let laptop: Laptop;
let before: string;
beforeEach(async () => {
  laptop = new Laptop();
  await laptop.fixture("lan", "dns-server.ts", [outside, "53", ...nameservers]);
  before = laptop.snapshot();
});
afterEach(() => laptop[Symbol.asyncDispose]());

async function connect(name: string, ...ranges: readonly string[]): Promise<Connection> {
  const socket = `${laptop.directory}/${name}.sock`;
  const daemon = await laptop.fixture("laptop", "connection.ts", [socket, name, ...ranges]);
  const outcome = new Promise<string>((resolve) => {
    daemon.child.stdout?.on("data", (chunk: Buffer) => resolve(chunk.toString().trim()));
  });
  const helper = await laptop.startHelper(socket);
  const [word, device = "", ...rest] = (await outcome).split(" ");
  if (word !== "ready") throw new Error(`${await outcome}: ${helper.log()}`);
  const said = JSON.parse(rest.join(" ")) as Pick<Connection, "warnings" | "programsAsk">;
  return { daemon, helper, device, ...said };
}

function dig(name: string, ...options: readonly string[]): string {
  return lookUp(name, `@${nameservers[0]}`, ...options);
}
/** As a program of `run` on this connection has it. */
function digInRun(name: string, { programsAsk: { address, port } }: Connection): string {
  return lookUp(name, `@${address}`, "-p", String(port));
}
function lookUp(name: string, ...options: readonly string[]): string {
  return laptop.run(["dig", "+short", "+tries=1", "+time=3", ...options, name]).trim();
}
/** Which cluster a program's connection ends in. */
const clusterAt = (address: string): Promise<string> =>
  laptop.exec([process.execPath, "-e", reader, address]).then((text) => text.trim());

const reader = `
const socket = require("net").connect(80, process.argv[1], () => socket.end("x"));
socket.setTimeout(5000, () => socket.destroy(new Error("no answer")));
socket.pipe(process.stdout);
`;

async function expectWhole(name: string, suffixOnly: boolean): Promise<void> {
  for (const type of ["A", "AAAA"]) {
    const below = dig(`hello.default.${name}.telepresence`, type);
    expect(await clusterAt(below)).toBe(name);
    expect(dig(`hello.default`, type)).toBe(suffixOnly ? outside : below);
  }
}

const first = ["10.96.0.0/16", "fd00:96::0/112"] as const;
const other = ["10.97.0.0/16", "fd00:97::0/112"] as const;

describe("two connections with a device each", () => {
  test("have their names and addresses: the first as the cluster writes them, the later below its suffix", async () => {
    const only = "names of this one are below dev.telepresence only (SERVICE.NAMESPACE.dev.telepresence)";
    expect(await connect("prod", ...first)).toMatchObject({ device: "tel0", warnings: [] });
    expect(await connect("dev", ...other)).toMatchObject({
      device: "tel0-1",
      warnings: [`another connection came first: ${only}`],
    });
    for (const [type, addresses] of [
      ["A", ["10.96.0.10", "10.97.0.10"]],
      ["AAAA", ["fd00:96::a", "fd00:97::a"]],
    ] as const) {
      expect(dig("hello.default", type)).toBe(addresses[0]);
      expect(dig("hello.default.prod.telepresence", type)).toBe(addresses[0]);
      expect(dig("hello.default.dev.telepresence", type)).toBe(addresses[1]);
      expect(await clusterAt(addresses[0])).toBe("prod");
      expect(await clusterAt(addresses[1])).toBe("dev");
    }
    expect(dig("only-dev.default")).toBe("");
    expect(dig("only-prod.default.dev.telepresence")).toBe("");
    expect(dig("www.example.com")).toBe(outside);
    expect(dig("www.example.com", "+tcp")).toBe(outside);
    expect(dig("10.0.96.10.in-addr.arpa", "PTR")).toBe("prod.default.svc.cluster.local.");
    expect(dig("10.0.97.10.in-addr.arpa", "PTR")).toBe("dev.default.svc.cluster.local.dev.telepresence.");
  });

  // Their network is one as without a device: it has no other connection's names, and its own as the cluster writes them.
  test("keep a program of run's look-ups in its own cluster", async () => {
    const [prod, dev] = [await connect("prod", ...first), await connect("dev", ...first)];
    for (const connection of [prod, dev]) {
      expect(digInRun("hello.default", connection)).toBe("10.96.0.10");
      expect(digInRun("www.example.com", connection)).toBe(outside);
    }
    expect(digInRun("only-prod.default", prod)).toBe("10.96.0.10");
    expect(digInRun("only-prod.default", dev)).toBe("");
    // An address that the other one's redirect answered would be taken for this cluster's.
    expect(digInRun("hello.default.prod.telepresence", dev)).toBe(outside);
  });

  // As two connections to one cluster have, and two clusters that were set up by the same hand.
  test("have translated addresses where their ranges are the same, and each its own cluster", async () => {
    await connect("prod", ...first);
    await connect("dev", ...first);
    const seen = dig("hello.default.dev.telepresence");
    expect(seen).toMatch(/^240\./);
    expect(await clusterAt(seen)).toBe("dev");
    expect(await clusterAt("10.96.0.10")).toBe("prod");
    const [a, b, c, d] = seen.split(".");
    expect(dig(`${d}.${c}.${b}.${a}.in-addr.arpa`, "PTR")).toBe("dev.default.svc.cluster.local.dev.telepresence.");
    expect(dig("10.0.96.10.in-addr.arpa", "PTR")).toBe("prod.default.svc.cluster.local.");
  });

  test.each([
    ["first", "daemon"],
    ["first", "helper"],
    ["later", "daemon"],
    ["later", "helper"],
  ] as const)(
    "when the %s one's %s is killed the other is whole, and in the end nothing is left",
    async (which, who) => {
      const connections = { first: await connect("prod", ...first), later: await connect("dev", ...other) };
      await expectWhole("prod", false);
      const kill = async ({ daemon, helper }: Connection): Promise<void> => {
        (who === "daemon" ? daemon : helper).child.kill("SIGKILL");
        await helper.ended;
      };
      const killed = connections[which];
      await kill(killed);
      await expect.poll(() => laptop.ip("link"), { timeout: 5000 }).not.toContain(`${killed.device}:`);
      const left = which === "first" ? connections.later : connections.first;
      await expectWhole(which === "first" ? "dev" : "prod", which === "first");
      // Nobody moves up: a name that meant one cluster a second ago would mean another.
      if (which === "first") expect(dig("only-dev.default")).toBe(outside);
      await kill(left);
      await expect.poll(() => laptop.snapshot(), { timeout: 5000 }).toBe(before);
    },
  );
});
