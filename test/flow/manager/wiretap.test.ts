// Stories of the original that must not repeat here: a request was lost when its caller had been answered and had left
// before the copy was written (close and write raced), and a copy that was written in the request's own turn hung the
// request when the tap did not read. Nobody but its own laptop may feel a wiretap.
import { once } from "node:events";
import { Agent as HttpAgent, request as httpRequest } from "node:http";
import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import { text as textOf } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import type { TestLaptop } from "./harness.ts";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";
import { roundsOf } from "#base/rounds.fake.ts";
import { ask, askAgent, namedServer, never, tcpServer, tick } from "./harness.ts";
import { KeptCaller, describe as describeRequest, httpServer } from "./http-ends.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import { startLab } from "./wiretap-lab.ts";
import type { Lab } from "./wiretap-lab.ts";

/** How much of it is bulk; more than may be held by half, so that holding all of it would show. */
const bulkBytes = roundsOf(40, 100) * 2 ** 20;
/** Requests of a turn, where two pods are compared by turns; of all turns more than there may be copies at once. */
const turnRequests = roundsOf(40, 200);

const report = (line: string): void => void process.stdout.write(`${line}\n`);

/** For as long as the test runs. */
async function use<T extends AsyncDisposable>(made: Promise<T>): Promise<T> {
  const one = await made;
  onTestFinished(() => one[Symbol.asyncDispose]());
  return one;
}
function caller(lab: Lab): KeptCaller {
  const one = new KeptCaller(lab.port);
  onTestFinished(() => one[Symbol.dispose]());
  return one;
}
const answer = (method: string, path: string, body = ""): string =>
  describeRequest("app", method, path, Buffer.from(body));

/** What comes to a server byte by byte; it answers each connection once with an answer of HTTP. */
async function recorder(text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") {
  const got: { bytes: Buffer; ended: boolean }[] = [];
  const server = await use(
    tcpServer((socket) => {
      const entry = { bytes: Buffer.alloc(0), ended: false };
      got.push(entry);
      socket.on("data", (chunk: Buffer) => {
        if (entry.bytes.length === 0) setImmediate(() => socket.write(text));
        entry.bytes = Buffer.concat([entry.bytes, chunk]);
      });
      socket.on("end", () => {
        entry.ended = true;
        socket.end();
      });
    }),
  );
  return { port: server.port, got };
}

/** Takes every connection of the tap, and reads none. */
async function tapUnread(lab: Lab): Promise<void> {
  lab.laptop.serveWith((await use(tcpServer((socket) => socket.pause()))).port);
  await lab.tap();
}

describe("a copy", () => {
  test("is not lost when its caller was answered and left before the laptop had taken it", async () => {
    const lab = await use(startLab());
    const tap = await use(httpServer("tap"));
    const taken = Promise.withResolvers<void>();
    lab.laptop.serveWith(tap.port);
    const serve = lab.laptop.onIncoming;
    lab.laptop.onIncoming = (incoming) => void taken.promise.then(() => serve(incoming));
    await lab.tap();
    const paths = Array.from({ length: 50 }, (_, index) => `/${index}`);
    for (const path of paths) {
      using one = new KeptCaller(lab.port);
      expect((await one.ask({ path })).body).toBe(answer("GET", path));
    }
    expect(tap.seen).toEqual([]);
    taken.resolve();
    while (tap.seen.length < paths.length) await tick();
    expect(tap.seen.toSorted()).toEqual(paths.map((path) => `GET ${path}`).toSorted());
  });

  test("that nobody reads hangs no request, however many match", async () => {
    const lab = await use(startLab());
    await tapUnread(lab);
    const one = caller(lab);
    const atOnce = 256;
    const asked = roundsOf(320, 600);
    for (let index = 0; index < asked; index += 1) {
      const got = await one.ask({ method: "POST", path: `/${index}`, body: Buffer.from("x") });
      expect(got.status).toBe(200);
    }
    await lab.laptop.until(([info]) => info?.copies?.cut === asked - atOnce);
    expect(lab.laptop.intercepts[0]?.copies).toEqual({
      copied: atOnce,
      cut: asked - atOnce,
      reason: "the laptop did not keep up",
    });
  });

  test("is the request byte by byte, and one header; the original has not even that", async () => {
    const app = await recorder();
    const tap = await recorder();
    const lab = await use(startLab({ port: app.port, [Symbol.asyncDispose]: () => Promise.resolve() }));
    lab.laptop.serveWith(tap.port);
    const { id } = await lab.tap();
    const head = "POST /a%20b?c HTTP/1.1\r\nhOst:  shop \r\nX-Odd: a\r\nx-odd: b\r\nTransfer-Encoding: chunked\r\n";
    const rest = "\r\n5;ext=1\r\nhello\r\n0\r\nTrailer-One: 1\r\n\r\n";
    const socket = connect({ port: lab.port, host: "127.0.0.1" });
    onTestFinished(() => void socket.destroy());
    for (const letter of head + rest) socket.write(letter);
    await expect.poll(() => tap.got[0]?.bytes.toString()).toBe(`${head}x-telepresence-wiretap: ${id}\r\n${rest}`);
    expect(app.got[0]?.bytes.toString()).toBe(head + rest);
    // A server would take its end for a caller who left; it comes after the answer.
    await expect.poll(() => tap.got[0]?.ended).toBe(true);
    expect(app.got[0]?.ended).toBe(false);
  });

  test("goes round no circle when the laptop's process calls the workload itself", async () => {
    const lab = await use(startLab());
    const one = caller(lab);
    const tap = await use(
      httpServer("tap", (incoming, response) => {
        const headers = incoming.headers as Record<string, string>;
        void one.ask({ path: "/from-the-tap", headers }).then(() => response.end());
      }),
    );
    lab.laptop.serveWith(tap.port);
    await lab.tap();
    await caller(lab).ask({ path: "/first" });
    await expect.poll(() => tap.seen).toEqual(["GET /first"]);
    await caller(lab).ask({ path: "/second" });
    await expect.poll(() => tap.seen).toEqual(["GET /first", "GET /second"]);
  });

  test("waits for a body that the filter asks for; the request does not", async () => {
    const heads: string[] = [];
    const app = await httpServer("app");
    app.server.prependListener("request", ({ url }) => heads.push(url ?? ""));
    const lab = await use(startLab(app));
    const tap = await use(httpServer("tap"));
    lab.laptop.serveWith(tap.port);
    await lab.tap({ filter: 'request.body.contains("ann")' });
    const slow = httpRequest({ port: lab.port, host: "127.0.0.1", method: "POST", path: "/slow" });
    onTestFinished(() => void slow.destroy());
    slow.write("I am ");
    await expect.poll(() => heads).toEqual(["/slow"]);
    slow.end("ann");
    await once(slow, "response");
    await caller(lab).ask({ method: "POST", path: "/bob", body: Buffer.from("bob") });
    await caller(lab).ask({ method: "POST", path: "/ann", body: Buffer.from("ann"), chunked: true });
    await expect.poll(() => tap.seen).toEqual(["POST /slow", "POST /ann"]);
  });

  test("of an upgraded connection goes on with what its caller says", async () => {
    const lab = await use(startLab());
    const tap = await recorder("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    lab.laptop.serveWith(tap.port);
    await lab.tap();
    const got = await caller(lab).ask({ path: "/chat", headers: { connection: "Upgrade", upgrade: "echo" } });
    expect(got.body).toBe("app:ping");
    await expect.poll(() => tap.got[0]?.bytes.toString()).toMatch(/^GET \/chat [^]*\r\n\r\nping$/);
  });

  test("of half a request is cut like the request itself", async () => {
    const lab = await use(startLab());
    const cut = Promise.withResolvers<string>();
    lab.laptop.onIncoming = (incoming) => {
      const stream = incoming.accept();
      stream.on("error", () => cut.resolve("reset")).on("end", () => cut.resolve("ended"));
      stream.resume();
    };
    await lab.tap();
    const socket = connect({ port: lab.port, host: "127.0.0.1" });
    socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    await expect.poll(() => lab.laptop.arrived).toBe(1);
    await lab.laptop.until(([info]) => info?.copies?.copied === 1);
    socket.destroy();
    expect(await cut.promise).toBe("reset");
    expect(lab.laptop.intercepts[0]?.copies?.cut).toBe(0);
  });

  test("is not made of kubelet's probes", async () => {
    const lab = await use(startLab());
    const tap = await use(httpServer("tap"));
    lab.laptop.serveWith(tap.port);
    await lab.tap();
    const one = caller(lab);
    await one.ask({ path: "/healthz", headers: { "user-agent": "kube-probe/1.34" } });
    await one.ask({ path: "/real" });
    await expect.poll(() => tap.seen).toEqual(["GET /real"]);
  });

  test("of a gRPC-like stream of HTTP/2 has body and trailers; a reset is a reset", async () => {
    const seen: string[] = [];
    const lab = await use(startLab(await http2Server("app")));
    const tap = await use(
      http2Server("tap", (stream, headers) => {
        let bytes = 0;
        stream.on("data", (chunk: Buffer) => (bytes += chunk.length));
        stream.on("trailers", (got) => seen.push(`${headers[":path"]} trailers ${String(got["x-end"])}`));
        stream.on("end", () => {
          if (stream.rstCode !== 0 || stream.destroyed) return;
          seen.push(`${headers[":path"]} ${bytes} ${String(headers["x-telepresence-wiretap"])}`);
          stream.respond({ ":status": 200 }, { endStream: true });
        });
        stream.on("close", () => seen.push(`${headers[":path"]} closed ${stream.rstCode}`));
      }),
    );
    lab.laptop.serveWith(tap.port);
    const { id } = await lab.tap();
    using one = new KeptHttp2Caller(lab.port);
    const stream = one.session.request({ ":method": "POST", ":path": "/t" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-end": "1" }));
    stream.end("hello");
    stream.resume();
    await once(stream, "close");
    await expect.poll(() => seen).toEqual(["/t trailers 1", `/t 5 ${id}`, "/t closed 0"]);
    // Node would end it otherwise, and then reset it.
    const cut = one.session.request({ ":method": "POST", ":path": "/cut" }, { waitForTrailers: true });
    cut.on("error", () => undefined);
    cut.write("half");
    await expect.poll(() => tap.seen).toContain("POST /cut");
    cut.close(8);
    await expect.poll(() => seen.at(-1)).toBe("/cut closed 8");
  });
});

test("connections that say nothing are not copied, however many there are", async () => {
  const lab = await use(startLab(await namedServer("app")));
  lab.laptop.onIncoming = (incoming) => void incoming.accept().resume();
  await lab.tap();
  for (let index = 0; index < 300; index += 1) expect(await ask(lab.port, "")).toBe("app:");
  expect(await ask(lab.port, "\0said")).toBe("app:\0said");
  await lab.laptop.until(([info]) => info?.copies?.copied === 1);
  expect(lab.laptop.arrived).toBe(1);
});

describe("several wiretaps", () => {
  test("and an intercept, of three people, have each what is theirs", async () => {
    const lab = await use(startLab());
    const people: TestLaptop[] = [lab.laptop, await lab.join("bob@desk"), await lab.join("eve@box")];
    const processes = await Promise.all(people.map(() => use(httpServer("laptop"))));
    for (const [index, laptop] of people.entries()) laptop.serveWith(processes[index]!.port);
    const [ann, bob, eve] = people as [TestLaptop, TestLaptop, TestLaptop];
    await lab.tap({}, ann, "all");
    await lab.tap({ filter: 'request.method == "GET"' }, bob, "gets");
    await eve.intercept("eves", lab.containerPort, "tcp", { filter: 'request.path == "/eve"' });
    await lab.tap({ filter: 'request.path == "/eve"' }, eve, "copies");
    const one = caller(lab);
    expect((await one.ask({ path: "/eve" })).body).toBe(describeRequest("laptop", "GET", "/eve", Buffer.alloc(0)));
    expect((await one.ask({ method: "PUT", path: "/" })).body).toBe(answer("PUT", "/"));
    await expect.poll(() => processes[0]?.seen).toEqual(["GET /eve", "PUT /"]);
    await expect.poll(() => processes[1]?.seen).toEqual(["GET /eve"]);
    await expect.poll(() => processes[2]?.seen).toEqual(["GET /eve", "GET /eve"]);
  });
});

describe("why", () => {
  test("names who got a copy, and why not all of it", async () => {
    const lab = await use(startLab());
    const tap = await use(httpServer("tap"));
    lab.laptop.serveWith(tap.port);
    const { id } = await lab.tap();
    const one = caller(lab);
    await one.ask({ path: "/a" });
    await lab.laptop.until(([info]) => info?.copies?.copied === 1);
    lab.laptop.serveWith((await use(tcpServer((socket) => socket.once("data", () => socket.resetAndDestroy())))).port);
    await one.ask({ path: "/b" });
    await lab.laptop.until(([info]) => info?.copies?.cut === 1);
    const suppose = { method: "GET", target: "/c", headers: [] };
    const said = await askAgent(lab.agent, (rpc) => rpc.call("why", { limit: 9, suppose }, never));
    expect(said.intercepts).toEqual([{ id, client: "ada@laptop" }]);
    expect(said.decisions.map(({ target, answeredBy, copies }) => [target, answeredBy, copies])).toEqual([
      ["/a", "application", [{ intercept: 0 }]],
      ["/b", "application", [{ intercept: 0, cut: "the process on the laptop closed the connection" }]],
    ]);
    expect(said.verdicts).toEqual([{ containerPort: lab.containerPort, rules: [], copies: [0] }]);
  });
});

describe("a laptop that reads slowly or not at all", () => {
  /** Milliseconds of each of so many requests, one after the other on a kept connection. */
  async function timesOf(lab: Lab, count: number): Promise<number[]> {
    const one = caller(lab);
    const times: number[] = [];
    for (let index = 0; index < count; index += 1) {
      const startedMs = performance.now();
      await one.ask({ method: "POST", path: "/", body: Buffer.alloc(2000) });
      times.push(performance.now() - startedMs);
    }
    return times;
  }
  const at = (times: readonly number[], share: number): number =>
    times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] ?? 0;
  /** Of most turns: a moment in which the machine does something else is in few of them, a wait of the tap's in all. */
  const usual = (turns: readonly (readonly number[])[], share: number): number =>
    at(
      turns.map((times) => at(times, share)),
      0.5,
    );

  test.each([
    { what: "never answers", arrange: (laptop: TestLaptop) => void (laptop.onIncoming = () => undefined) },
    {
      what: "accepts and reads nothing",
      arrange: (laptop: TestLaptop) => void (laptop.onIncoming = (incoming) => void incoming.accept()),
    },
  ])("costs the application's callers nothing when it $what", async ({ what, arrange }) => {
    // Two pods by turns, so that whatever else the machine does is done to both.
    const [plain, tapped] = [await use(startLab()), await use(startLab())];
    arrange(tapped.laptop);
    await tapped.tap();
    const turns = { without: [] as number[][], withTap: [] as number[][] };
    for (let round = 0; round < 12; round += 1) {
      const pair = { without: await timesOf(plain, turnRequests), withTap: await timesOf(tapped, turnRequests) };
      if (round < 2) continue; // warm
      turns.without.push(pair.without);
      turns.withTap.push(pair.withTap);
    }
    const percentiles = (of: readonly number[][]) => ({ p50: usual(of, 0.5), p99: usual(of, 0.99) });
    const [without, withTap] = [percentiles(turns.without), percentiles(turns.withTap)];
    report(`wiretap that ${what}: p50 and p99 of most turns in ms ${JSON.stringify({ without, withTap })}`);
    // The machine's own noise; a tap that is waited for costs its 5 s or hangs.
    expect(withTap.p99).toBeLessThan(2 * without.p99 + 10);
    // Of two turns next to each other: a machine that becomes slower meanwhile is no cost of the tap's.
    const more = turns.withTap.map((times, round) => at(times, 0.5) - at(turns.without[round] ?? [], 0.5));
    expect(at(more, 0.5)).toBeLessThan(0.5 * without.p50 + 1);
  });

  test("of a long body has a bounded copy, which is cut and counted, and the application has all of it", async () => {
    const app = await tcpServer((socket) => {
      let headBytes: number | undefined; // a head comes in one piece here
      let bytes = 0;
      socket.on("data", (chunk: Buffer) => {
        headBytes ??= chunk.indexOf("\r\n\r\n") + 4;
        bytes += chunk.length;
        if (bytes !== headBytes + bulkBytes) return;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${String(bulkBytes).length}\r\n\r\n${bulkBytes}`);
      });
    });
    const lab = await use(startLab(app));
    const peakOf = async (look: () => number, eachBytes: number): Promise<number> => {
      let peak = 0;
      const piece = Buffer.alloc(64 * 1024);
      const agent = new HttpAgent({ keepAlive: false });
      const headers = { "content-length": bulkBytes };
      const out = httpRequest({ port: lab.port, host: "127.0.0.1", method: "POST", path: "/", headers, agent });
      const broken = new AbortController();
      out.on("error", (error) => broken.abort(error)); // also when nobody waits any more: what failed first is to be told
      const { signal } = broken;
      const answered = once(out, "response", { signal });
      answered.catch(() => undefined);
      for (let sent = 0; sent < bulkBytes; sent += piece.length) {
        if (!out.write(piece)) await once(out, "drain", { signal });
        if (sent % eachBytes === 0) peak = Math.max(peak, look());
      }
      out.end();
      const [response] = (await answered) as [IncomingMessage];
      expect(await textOf(response)).toBe(String(bulkBytes));
      return peak;
    };
    const without = await peakOf(heldBytes, bulkBytes / 2); // each look collects all garbage
    lab.laptop.onIncoming = (incoming) => void incoming.accept();
    await lab.tap();
    const boundBytes = 32 * 2 ** 20;
    const beyond = await peakOf(() => heldBeyond(without, boundBytes), 8 * 2 ** 20);
    await lab.laptop.until(([info]) => info?.copies?.cut === 1);
    expect(lab.laptop.intercepts[0]?.copies?.reason).toBe("the laptop did not keep up");
    report(`wiretap of ${bulkBytes / 2 ** 20} MB: held at most ${Math.round(beyond / 2 ** 20)} MB more than without`);
    expect(beyond).toBeLessThan(boundBytes);
  });

  test("has connections that are no HTTP cut for it alone", async () => {
    const app = await tcpServer((socket) => {
      let bytes = 0;
      socket.on("data", (chunk: Buffer) => (bytes += chunk.length));
      socket.on("end", () => socket.end(String(bytes)));
    });
    const lab = await use(startLab(app));
    lab.laptop.onIncoming = (incoming) => void incoming.accept();
    await lab.tap();
    const text = `\0${"x".repeat(8 * 1024 * 1024)}`;
    expect(await ask(lab.port, text)).toBe(String(text.length));
    await lab.laptop.until(([info]) => info?.copies?.cut === 1);
  });
});
