// A program's connection through the proxy, over a real session in memory to a cluster that answers for itself.
import dnsPacket from "dns-packet";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { createSessionPair } from "#tunnel/session-pair.fake.ts";
import type { Endpoint } from "#wire/open.ts";
import { RootlessNetwork, type RootlessNetworkOptions } from "./rootless-network.ts";

const signal = new AbortController().signal;
const closers: (() => PromiseLike<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

/** Names of the cluster; all others do not exist there. */
const names: Readonly<Record<string, string>> = {
  "hello.default.svc.cluster.local": "10.96.0.7",
  "far.team.svc.cluster.local": "192.168.77.3",
};

function answer(message: Uint8Array): Promise<Uint8Array> {
  const query = dnsPacket.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  const address = names[question?.name ?? ""];
  const found = address !== undefined && question?.type === "A";
  return Promise.resolve(
    dnsPacket.encode({
      type: "response",
      id: query.id ?? 0,
      flags: address === undefined ? 3 : 0,
      questions: query.questions ?? [],
      answers: found ? [{ type: "A", name: question.name, ttl: 5, data: address }] : [],
    }),
  );
}

async function open(
  change: Partial<RootlessNetworkOptions["routing"]> = {},
  complete = true,
): Promise<{
  readonly network: RootlessNetwork;
  readonly dialed: Endpoint[];
}> {
  const pair = await createSessionPair();
  closers.push(() => pair[Symbol.asyncDispose]());
  const dialed: Endpoint[] = [];
  pair.accepter.onIncoming((incoming) => {
    if (incoming.request.kind !== "tcp") return incoming.reject("unsupported", "only TCP here");
    dialed.push(incoming.request.target);
    const stream = incoming.accept();
    stream.pipe(stream);
  });
  const network = await RootlessNetwork.open(
    {
      session: pair.opener,
      exchange: answer,
      names: { clusterDomain: "cluster.local", namespace: "default", namespaces: ["default", "team"] },
      resolver: { mode: "nft", nameservers: [], asked: [] },
      ranges: { services: ["10.96.0.0/16"], pods: [], complete },
      routing: { also: [], never: [], apiServer: [], vnat: ["all"], ...change },
      lookFor: () => Promise.resolve(),
      proxy: { socksPort: 0, httpPort: 0 },
      clock: systemClock,
      log: silentLogger,
    },
    signal,
  );
  closers.push(() => network[Symbol.asyncDispose]());
  return { network, dialed };
}

/** What the proxy says first, and the connection. */
async function tunnel(network: RootlessNetwork, to: string): Promise<[string, Socket]> {
  const socket = connect({ port: Number(network.proxy?.http.split(":")[1]), host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => undefined); // reset at the end
  socket.write(`CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n\r\n`);
  const [first] = (await once(socket, "data")) as [Buffer];
  return [first.toString().split("\r\n", 1)[0] ?? "", socket];
}

test("names are looked up as in the connection's namespace, and dialed by the cluster", async () => {
  const { network, dialed } = await open();
  for (const name of ["hello", "Hello.default", "hello.default.svc.cluster.local"]) {
    const [said, socket] = await tunnel(network, `${name}:80`);
    expect(said).toBe("HTTP/1.1 200 Connection established");
    socket.end("there and back");
    expect(await text(socket)).toBe("there and back");
  }
  expect(dialed).toEqual(Array(3).fill({ address: "10.96.0.7", port: 80 }));
  expect((await tunnel(network, "nothing.team:80"))[0]).toBe("HTTP/1.1 502 Bad Gateway");
});

test("addresses go where a device's routes would take them", async () => {
  const { network, dialed } = await open({ never: ["10.96.0.9/32"], also: ["198.51.100.0/24"] });
  await tunnel(network, "198.51.100.4:80");
  await tunnel(network, "10.96.0.8:80");
  expect(dialed.map(({ address }) => address)).toEqual(["198.51.100.4", "10.96.0.8"]);
  expect(await network.status()).toMatchObject({ routing: { neverProxy: ["10.96.0.9/32"] } });
});

test("where the ranges are guessed, an answered address outside of them is the cluster's too", async () => {
  const { network, dialed } = await open({}, false);
  expect((await tunnel(network, "far.team:80"))[0]).toBe("HTTP/1.1 200 Connection established");
  expect(dialed).toEqual([{ address: "192.168.77.3", port: 80 }]);
});

test("its end resets what is open and frees the ports", async () => {
  const { network } = await open();
  const [, socket] = await tunnel(network, "hello:80");
  const closed = new Promise((resolve) => void socket.once("close", resolve));
  await network[Symbol.asyncDispose]();
  await closed;
  const again = connect(Number(network.proxy?.socks.split(":")[1]), "127.0.0.1");
  expect(await once(again, "connect").catch((error: NodeJS.ErrnoException) => error.code)).toBe("ECONNREFUSED");
});
