// Every kind of request in every state that an intercept can be in. Story of the original: a laptop that went away took
// its callers' requests with it, for a minute.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { KeptCaller, httpServer } from "./http-ends.ts";
import type { Asked, Got } from "./http-ends.ts";
import { TestLaptop, testAgent, testManager, tick } from "./harness.ts";

const small = Buffer.from("0123456789");
const large = Buffer.alloc(1024 * 1024, 7);
const upgrade = { connection: "Upgrade", upgrade: "echo" };

interface Kind {
  readonly name: string;
  readonly asked: Asked;
  /** Sent again to the application when the laptop's answer is lost. */
  readonly repeatable: boolean;
}
const kinds: readonly Kind[] = [
  { name: "GET small", asked: {}, repeatable: true },
  { name: "PUT 10 B", asked: { method: "PUT", body: small }, repeatable: true },
  { name: "PUT 1 MiB", asked: { method: "PUT", body: large }, repeatable: false },
  { name: "POST 10 B", asked: { method: "POST", body: small }, repeatable: false },
  { name: "POST 1 MiB", asked: { method: "POST", body: large }, repeatable: false },
  { name: "POST chunked", asked: { method: "POST", body: large, chunked: true }, repeatable: false },
  { name: "PUT chunked", asked: { method: "PUT", body: small, chunked: true }, repeatable: true },
  { name: "HEAD", asked: { method: "HEAD" }, repeatable: true },
  {
    name: "Expect: 100-continue",
    asked: { method: "PUT", body: small, headers: { expect: "100-continue" } },
    repeatable: true,
  },
  { name: "upgrade", asked: { headers: upgrade }, repeatable: true },
];

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

type State = "no intercept" | "intercept" | "refuses" | "lost before" | "lost amid";

interface Prepared {
  readonly ask: (asked: Asked) => Promise<Got>;
  readonly laptop: TestLaptop;
}

/** One pod for many tests, to each of which a laptop comes. */
async function openPod(http: boolean | undefined, disposables: AsyncDisposableStack) {
  const manager = disposables.use(await testManager({ idleOwnerMs: 0 })); // laptops are lost here, and others come
  const app = disposables.use(await httpServer("app"));
  const process = disposables.use(await httpServer("laptop"));
  const agent = disposables.use(await testAgent({ containerPort: app.port, http }));
  return { manager, app, process, agent };
}
type Pod = Awaited<ReturnType<typeof openPod>>;

/** A caller that has had one answer of the application, before the state came to be. */
async function prepare(state: State, { manager, app, process, agent }: Pod): Promise<Prepared> {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  disposables.defer(async () => {
    while (manager.registry.list().some((intercept) => intercept.state === "active")) await tick();
  });
  const laptop = disposables.use(await TestLaptop.connect(manager));
  await laptop.introduce(manager, agent);
  const caller = disposables.use(new KeptCaller(agent.agentPorts[0]!));
  const before = await caller.ask();
  expect(before.body).toContain("app GET");
  if (state === "intercept") laptop.serveWith(process.port);
  if (state === "lost before") loseLink(laptop, "");
  if (state === "lost amid") loseLink(laptop, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
  if (state !== "no intercept") await laptop.intercept("hello", app.port);
  return {
    laptop,
    ask: async (asked) => {
      const got = await caller.ask(asked);
      expect(got.localPort).toBe(before.localPort);
      return got;
    },
  };
}

/** Takes a part of the request, says so much, and is gone: at once, or when the caller has seen the beginning. */
function loseLink(laptop: TestLaptop, says: string): void {
  laptop.onIncoming = (incoming) => {
    const stream = incoming.accept();
    stream.once("data", (chunk: Buffer) => {
      stream.resume();
      const text = chunk.toString("latin1");
      if (/expect: 100/i.test(text)) stream.write("HTTP/1.1 100 Continue\r\n\r\n");
      if (says === "") laptop.transport.destroy();
      else if (text.startsWith("HEAD")) stream.write("HTTP/1.1 200 OK\r\nContent-", () => laptop.transport.end());
      else stream.write(says);
    });
  };
}

function bodyOf(name: string, { asked }: Kind): string | RegExp {
  if (asked.headers?.["upgrade"] !== undefined) return `${name}:ping`;
  return asked.method === "HEAD" ? "" : new RegExp(`^${name} ${asked.method ?? "GET"} / ${asked.body?.length ?? 0} `);
}

describe.each([[undefined], [true]])("a kept connection, HTTP by the service's word: %s", (http) => {
  const lasting = new AsyncDisposableStack();
  let pod: Pod;
  beforeAll(async () => {
    pod = await openPod(http, lasting);
  });
  afterAll(() => lasting.disposeAsync());

  describe.each(kinds)("$name", (kind) => {
    test.each([
      ["no intercept", "app"],
      ["intercept", "laptop"],
      ["refuses", "app"],
    ] as const)("with %s is answered by the %s", async (state, name) => {
      const { ask } = await prepare(state, pod);
      const got = await ask(kind.asked);
      expect(got.status).toBe(kind.name === "upgrade" ? 101 : 200);
      expect(got.body).toMatch(bodyOf(name, kind));
    });

    test("with its laptop lost before the answer goes to the application, or says why not", async () => {
      const { ask } = await prepare("lost before", pod);
      const got = await ask(kind.asked);
      if (kind.repeatable) {
        expect(got.status).toBe(kind.name === "upgrade" ? 101 : 200);
        expect(got.body).toMatch(bodyOf("app", kind));
      } else {
        expect(got.status).toBe(502);
        expect(got.body).toMatch(/^telepresence: the laptop's answer to this (POST|PUT) was lost/);
      }
    });

    test("with its laptop lost amid the answer is cut, never ended as if it were whole", async () => {
      const { ask, laptop } = await prepare("lost amid", pod);
      if (kind.name === "HEAD") {
        // Its answer has no middle: half a head is no answer.
        expect((await ask(kind.asked)).status).toBe(200);
      } else {
        const onHead = (): unknown => laptop.transport.destroy();
        await expect(ask({ ...kind.asked, onHead })).rejects.toMatchObject({ code: "ECONNRESET" });
      }
    });
  });
});
