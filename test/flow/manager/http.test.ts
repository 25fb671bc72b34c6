// HTTP/1.1 through the agent, decided request by request: what passes must be what was sent, and what is not understood
// is the application's to answer, never the laptop's.
import { once } from "node:events";
import { createServer } from "node:http";
import type { ServerResponse } from "node:http";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Agent } from "#agent/agent.ts";
import { deadline } from "#base/abort.ts";
import { systemClock } from "#base/clock.ts";
import { KeptCaller, httpServer } from "./http-ends.ts";
import { TestLaptop, randomFrom, tcpServer, testAgent, testManager } from "./harness.ts";

/** A caller that writes bytes. */
class RawCaller implements Disposable {
  readonly socket: Socket;
  text = "";
  ended = false;
  failed: string | undefined;
  constructor(agent: Agent) {
    this.socket = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    this.socket.on("data", (chunk: Buffer) => (this.text += chunk.toString("latin1")));
    this.socket.on("end", () => (this.ended = true));
    this.socket.on("error", (error: NodeJS.ErrnoException) => (this.failed = error.code));
  }
  async says(text: string): Promise<void> {
    while (!this.text.includes(text)) {
      if (this.failed !== undefined) throw new Error(`${this.failed} after ${JSON.stringify(this.text)}`);
      await turn();
    }
  }
  async ends(): Promise<string> {
    while (!this.ended && this.failed === undefined) await turn();
    return this.failed ?? "end";
  }
  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** A whole cluster with an intercept in force; `app` and `laptop` are HTTP servers. */
async function intercepted(http?: boolean, onRefused?: "app" | "fail") {
  const stack = new AsyncDisposableStack();
  const manager = stack.use(await testManager());
  const app = stack.use(await httpServer("app"));
  const process = stack.use(await httpServer("laptop"));
  const laptop = stack.use(await TestLaptop.connect(manager));
  const agent = stack.use(await testAgent({ containerPort: app.port, http }));
  await laptop.introduce(manager, agent);
  laptop.serveWith(process.port);
  const { id } = await laptop.intercept("hello", app.port, "tcp", onRefused === undefined ? {} : { onRefused });
  return { app, process, laptop, agent, id, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const get = (path: string, more = ""): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;

describe("requests and answers", () => {
  test("pass as they are, byte for byte, whatever the pieces", async () => {
    const random = randomFrom(7);
    const requests = [
      get("/1", "X-Odd:   spaces  \r\nx-odd: twice\r\n"),
      "POST /2 HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\nabcde",
      "\r\nPUT /3?q=%20 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: t\r\n\r\n",
      "HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n",
      `POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n${"z".repeat(300_000)}`,
      "BREW /6 HTTP/1.1\r\nHost: \xe9\r\n\r\n",
      get("/7"),
    ];
    const answers = [
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
      "HTTP/1.1 204 \r\nX:  y\r\n\r\n",
      "HTTP/1.1 200 fine\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n",
      `HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n${"y".repeat(200_000)}`,
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
      "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ];
    // The application answers each request as a whole comes to its end, in pieces of its own.
    let got = "";
    await using app = await tcpServer((socket) => {
      let answered = 0;
      socket.on("data", (chunk: Buffer) => {
        got += chunk.toString("latin1");
        const whole = requests.slice(0, answered + 1).join("");
        if (got.length < whole.length) return;
        const answer = Buffer.from(answers[answered] ?? "", "latin1");
        answered += 1;
        for (let at = 0; at < answer.length;) {
          const count = 1 + random(answer.length > 1000 ? 60_000 : 9);
          socket.write(answer.subarray(at, at + count));
          at += count;
        }
        if (answered === answers.length) socket.end();
      });
    });
    await using agent = await testAgent({ containerPort: app.port });
    using caller = new RawCaller(agent);
    const all = Buffer.from(requests.join(""), "latin1");
    for (let at = 0; at < all.length;) {
      const count = 1 + random(all.length > 1000 && at > 200 && at < 300_000 ? 50_000 : 12);
      caller.socket.write(all.subarray(at, at + count));
      if (random(3) === 0) await turn();
      at += count;
    }
    expect(await caller.ends()).toBe("end");
    expect(got).toBe(requests.join(""));
    expect(caller.text).toBe(answers.join(""));
  });

  test("of Node's own server and client are the same through the agent as without it", async () => {
    const random = randomFrom(11);
    const server = createServer((incoming, response) => {
      const size = Number(incoming.headers["x-size"] ?? 0);
      const named = incoming.headers["x-kind"];
      const kind = named === "trailers" && incoming.method === "HEAD" ? "chunked" : named;
      if (kind === "hints") response.writeEarlyHints({ link: "</a.css>; rel=preload" });
      if (kind === "trailers") response.setHeader("Trailer", "X-End");
      if (kind === "length") response.setHeader("Content-Length", size);
      response.statusCode = kind === "none" ? 204 : kind === "same" ? 304 : 200;
      incoming.resume().on("end", () => {
        for (let left = size; left > 0; left -= 10_000) response.write(Buffer.alloc(Math.min(left, 10_000), "b"));
        if (kind === "trailers") response.addTrailers({ "X-End": `${size}` });
        response.end();
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await using agent = await testAgent({ containerPort: port });
    using direct = new KeptCaller(port);
    using through = new KeptCaller(agent.agentPorts[0]!);
    const kinds = ["hints", "trailers", "length", "chunked", "none", "same"];
    const methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
    for (let index = 0; index < 150; index += 1) {
      const headers: Record<string, string> = {
        "x-kind": kinds[random(kinds.length)]!,
        "x-size": `${random(4) === 0 ? random(500_000) : random(200)}`,
      };
      const method = methods[random(methods.length)]!;
      const hasBody = method === "POST" || method === "PUT";
      if (hasBody && random(4) === 0) headers["expect"] = "100-continue";
      const body = Buffer.alloc(random(4) === 0 ? random(300_000) : random(100), "c");
      const asked = { method, headers, ...(hasBody ? { body, chunked: random(2) === 0 } : {}) };
      const [here, there] = [await direct.ask(asked), await through.ask(asked)];
      for (const got of [here, there]) delete got.headers.date;
      expect({ ...there, localPort: 0 }).toEqual({ ...here, localPort: 0 });
    }
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  test("sent ahead are answered in order, each by whom it is for", async () => {
    await using cluster = await intercepted();
    using caller = new RawCaller(cluster.agent);
    const probe = "User-Agent: kube-probe/1.34\r\n";
    caller.socket.write(get("/1") + get("/2", probe) + get("/3") + get("/4", probe) + get("/5"));
    await caller.says("/5 0");
    expect(caller.text.match(/(app|laptop) GET \/\d/g)).toEqual([
      "laptop GET /1",
      "app GET /2",
      "laptop GET /3",
      "app GET /4",
      "laptop GET /5",
    ]);
    expect(cluster.laptop.arrived).toBe(1);
  });

  test("brake the sender, whichever side does not read", async () => {
    let sent = 0;
    const endless = await httpServer("app", (_incoming, response) => {
      const block = Buffer.alloc(64 * 1024);
      const more = (): void => {
        while (!response.destroyed && response.write(block)) sent += block.length;
      };
      response.on("drain", more);
      more();
    });
    await using app = endless;
    await using agent = await testAgent({ containerPort: app.port });
    using caller = new RawCaller(agent);
    caller.socket.pause();
    caller.socket.write(get("/"));
    let before = -1;
    for (let idle = 0; idle < 300; idle = sent === before ? idle + 1 : 0) {
      before = sent;
      await turn();
    }
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    // The other way: an upload that nobody reads.
    await using deaf = await tcpServer((socket) => socket.pause());
    await using other = await testAgent({ number: 2, containerPort: deaf.port });
    using uploader = new RawCaller(other);
    uploader.socket.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let up = 0;
    const block = Buffer.alloc(64 * 1024);
    for (let idle = 0; idle < 300;) {
      if (uploader.socket.writableLength < block.length) {
        uploader.socket.write(block);
        up += block.length;
        idle = 0;
      } else idle += 1;
      await turn();
    }
    expect(up).toBeLessThan(64 * 1024 * 1024);
  });
});

describe("a leave", () => {
  test("lets the exchange that is under way finish, then ends the laptop's stream in order", async () => {
    await using cluster = await intercepted();
    let finish = (): void => undefined;
    let closed = "open";
    await using slow = await httpServer("laptop", (_incoming, response) => {
      response.write("first ");
      finish = () => response.end("last");
    });
    slow.server.on("connection", (socket: Socket) => {
      socket.on("error", () => (closed = "reset"));
      socket.on("end", () => (closed = closed === "reset" ? closed : "end"));
    });
    cluster.laptop.serveWith(slow.port);
    using caller = new RawCaller(cluster.agent);
    caller.socket.write(get("/"));
    await caller.says("first ");
    await cluster.laptop.remove(cluster.id);
    finish();
    await caller.says("last");
    caller.socket.write(get("/next"));
    await caller.says("app GET /next");
    while (closed === "open") await turn();
    expect(closed).toBe("end");
    while (cluster.laptop.session.streamCount > 1) await turn();
  });

  test("ends an idle stream to the laptop at once", async () => {
    await using cluster = await intercepted();
    using caller = new RawCaller(cluster.agent);
    caller.socket.write(get("/"));
    await caller.says("laptop GET");
    expect(cluster.laptop.session.streamCount).toBe(2);
    await cluster.laptop.remove(cluster.id);
    while (cluster.laptop.session.streamCount > 1) await turn();
    expect(caller.ended).toBe(false);
  });
});

describe("what closes", () => {
  test("an idle application closes its caller's connection; an idle laptop does not", async () => {
    await using cluster = await intercepted();
    using caller = new RawCaller(cluster.agent);
    caller.socket.write(get("/1"));
    await caller.says("laptop GET /1");
    cluster.process.server.closeIdleConnections();
    while (cluster.laptop.session.streamCount > 1) await turn();
    caller.socket.write(get("/2"));
    await caller.says("laptop GET /2");
    await cluster.laptop.remove(cluster.id);
    caller.socket.write(get("/3"));
    await caller.says("app GET /3");
    cluster.app.server.closeIdleConnections();
    expect(await caller.ends()).toBe("end");
  });

  test.each([
    ["Connection: close", get("/", "Connection: close\r\n")],
    ["HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"],
  ])("a request with %s ends the connection after its answer, whoever gives it", async (_, request) => {
    await using cluster = await intercepted();
    for (const name of ["laptop", "app"]) {
      using caller = new RawCaller(cluster.agent);
      caller.socket.write(request);
      expect(await caller.ends()).toBe("end");
      expect(caller.text).toContain(`${name} GET /`);
      if (name === "laptop") await cluster.laptop.remove(cluster.id);
    }
  });

  test("a caller that has ended its half gets its answer", async () => {
    // Node's own server takes the end for a farewell.
    await using app = await tcpServer((socket) => {
      socket.on("end", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"));
      socket.resume();
    });
    await using agent = await testAgent({ containerPort: app.port });
    using caller = new RawCaller(agent);
    caller.socket.end(get("/"));
    expect(await caller.ends()).toBe("end");
    expect(caller.text).toMatch(/hi$/);
    while (agent.openConnections > 0) await turn();
  });

  test("an answer of the laptop that is shorter than it says is cut", async () => {
    await using cluster = await intercepted();
    await using short = await tcpServer((socket) => {
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
    });
    cluster.laptop.serveWith(short.port);
    using caller = new RawCaller(cluster.agent);
    caller.socket.write(get("/"));
    expect(await caller.ends()).toBe("ECONNRESET");
  });
});

describe("a laptop's process", () => {
  test("that closes without an answer leaves the request to the application, once it was asked anew", async () => {
    await using cluster = await intercepted();
    let connections = 0;
    await using moody = await tcpServer((socket) => {
      connections += 1;
      let requests = 0;
      // Answers one request on a connection, and takes the next one with it.
      socket.on("data", () => {
        requests += 1;
        if (requests === 1) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nmoody");
        else socket.resetAndDestroy();
      });
    });
    cluster.laptop.serveWith(moody.port);
    using caller = new RawCaller(cluster.agent);
    caller.socket.write(get("/1"));
    await caller.says("moody");
    caller.text = "";
    caller.socket.write(get("/2"));
    await caller.says("moody");
    expect(connections).toBe(2);
    await using deaf = await tcpServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
    cluster.laptop.serveWith(deaf.port);
    using other = new RawCaller(cluster.agent);
    other.socket.write(get("/3"));
    await other.says("app GET /3");
  });

  test.each([[undefined], [true]])(
    "that refuses fails the request where that is asked for (HTTP by the service's word: %s)",
    async (http) => {
      await using cluster = await intercepted(http, "fail");
      cluster.laptop.onIncoming = (incoming) => incoming.reject("refused", "nothing listens there");
      using caller = new RawCaller(cluster.agent);
      caller.socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
      await caller.says("nothing listens there\n");
      expect(caller.text).toContain("HTTP/1.1 502 Bad Gateway\r\n");
      expect(caller.text).not.toContain("Connection: close");
      caller.text = "";
      caller.socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc");
      await caller.says("nothing listens there\n");
      expect(caller.text).toContain("Connection: close\r\n");
      expect(await caller.ends()).toBe("end");
      using raw = new RawCaller(cluster.agent);
      raw.socket.write("no HTTP\r\n");
      expect(await raw.ends()).toBe("ECONNRESET");
      expect(cluster.app.seen).toEqual([]);
    },
  );
});

describe("what is not understood", () => {
  test.each([
    ["two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"],
    ["a length and a coding", `POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ["a folded line", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"],
    ["bare line feeds", "GET / HTTP/1.1\nHost: a\n\n"],
    ["a head without an end", `GET / HTTP/1.1\r\nA: ${"a".repeat(100_000)}`],
    ["a chunk that is none", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
  ])("is the application's: %s", async (_, text) => {
    let got = "";
    await using app = await tcpServer((socket) => {
      socket.on("data", (chunk: Buffer) => {
        got += chunk.toString("latin1");
        if (got.length === text.length) socket.end("HTTP/1.1 400 I am the application\r\n\r\n");
      });
    });
    await using manager = await testManager();
    await using laptop = await TestLaptop.connect(manager);
    await using agent = await testAgent({ containerPort: app.port, http: true });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    using caller = new RawCaller(agent);
    caller.socket.write(Buffer.from(text, "latin1"));
    await caller.says("I am the application");
    expect(got).toBe(text);
    expect(laptop.arrived).toBe(0);
  });

  test("in a body that the laptop has is refused", async () => {
    await using cluster = await intercepted();
    using caller = new RawCaller(cluster.agent);
    caller.socket.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    while (cluster.laptop.arrived === 0) await turn();
    caller.socket.write("zzz\r\n");
    await caller.says("HTTP/1.1 400 Bad Request");
    expect(await caller.ends()).toBe("end");
    expect(cluster.app.seen).toEqual([]);
  });

  test("is no HTTP, and goes to the laptop as a whole: TLS and other protocols", async () => {
    await using cluster = await intercepted(true);
    await using process = await tcpServer((socket) =>
      socket.on("data", (chunk: Buffer) => socket.write(`laptop got ${chunk.length}`)),
    );
    cluster.laptop.serveWith(process.port);
    for (const text of ["\x16\x03\x01\x02\x00", "PING\r\n"]) {
      using caller = new RawCaller(cluster.agent);
      caller.socket.write(Buffer.from(text, "latin1"));
      await caller.says(`laptop got ${text.length}`);
    }
  });

  test("may begin like HTTP and stop: that waits for nobody longer than a second", async () => {
    await using cluster = await intercepted();
    await using process = await tcpServer((socket) => socket.on("data", () => socket.write("laptop")));
    cluster.laptop.serveWith(process.port);
    using caller = new RawCaller(cluster.agent);
    caller.socket.write("P");
    await caller.says("laptop");
  });
});

test.each(["application", "laptop"])("events of a stream of the %s come one by one, as they are sent", async (who) => {
  const { promise: answering, resolve } = Promise.withResolvers<ServerResponse>();
  await using stack = new AsyncDisposableStack();
  const server = stack.use(
    await httpServer(who, (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
      resolve(response);
    }),
  );
  const manager = stack.use(await testManager());
  const laptop = stack.use(await TestLaptop.connect(manager));
  const agent = stack.use(await testAgent({ containerPort: server.port }));
  await laptop.introduce(manager, agent);
  laptop.serveWith(server.port);
  if (who === "laptop") await laptop.intercept("hello", server.port);
  using caller = new RawCaller(agent);
  caller.socket.write(get("/events", "Accept: text/event-stream\r\n"));
  const response = await answering;
  for (const event of ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]) {
    response.write(event);
    await caller.says(event); // the next one is sent only then
  }
  expect(laptop.arrived).toBe(who === "laptop" ? 1 : 0);
});

test("kubelet's probes go to the application, so that a breakpoint has no pod restarted", async () => {
  await using cluster = await intercepted(true);
  cluster.laptop.onIncoming = (incoming) => void incoming.accept(); // a process at a breakpoint
  using kubelet = new KeptCaller(cluster.agent.agentPorts[0]!);
  const got = await kubelet.ask({ path: "/healthz", headers: { "user-agent": "kube-probe/1.34" } });
  expect(got.body).toContain("app GET /healthz");
  expect(cluster.laptop.arrived).toBe(0);
});

// A pod's callers keep their connections as long as its laptop answers on them: an ending agent held them until kubelet
// killed it, and cut whatever was asked at that moment.
test("an agent that ends says so in the laptop's next answer, and is left by its callers", async () => {
  await using all = await intercepted();
  using kept = new RawCaller(all.agent);
  kept.socket.write(get("/first"));
  await kept.says("laptop");
  expect(kept.text.toLowerCase()).not.toContain("connection: close");
  using limit = deadline(systemClock, 10_000, "draining");
  const drained = all.agent.drain(limit.signal);
  kept.socket.write(get("/last"));
  expect(await kept.ends()).toBe("end");
  kept.socket.end();
  const [, , last = ""] = kept.text.split("HTTP/1.1 200 OK");
  expect(last.toLowerCase()).toContain("connection: close\r\n\r\n");
  expect(last).toContain("laptop");
  await all.app[Symbol.asyncDispose]();
  await drained;
  expect(limit.signal.aborted).toBe(false);
  expect(all.agent.openConnections).toBe(0);
});
