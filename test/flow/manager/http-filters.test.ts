// Many people on one port, each with the requests of their own. Story of the original: filters chose connections, so who
// came first on a kept connection got everybody's requests.
import { afterEach, describe, expect, test } from "vitest";
import type { InterceptInfo, InterceptSpec } from "#wire/manager-api.ts";
import { compileFlags } from "#filter/flags.ts";
import type { FilterFlags } from "#filter/flags.ts";
import { KeptCaller, httpServer } from "./http-ends.ts";
import type { Asked, HttpServer } from "./http-ends.ts";
import { TestLaptop, ask, namedServer, testAgent, testManager } from "./harness.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

interface Person {
  readonly laptop: TestLaptop;
  readonly process: HttpServer;
  readonly intercept: (more?: Partial<InterceptSpec>, name?: string) => Promise<InterceptInfo>;
}

/** A pod in front of `app`, and people who may intercept it; `ann` is the name of her laptop's process as well. */
async function shop(...names: readonly string[]) {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const manager = disposables.use(await testManager());
  const app = disposables.use(await httpServer("app"));
  const agent = disposables.use(await testAgent({ containerPort: app.port }));
  const people: Person[] = [];
  for (const name of names) {
    const process = disposables.use(await httpServer(name));
    const laptop = disposables.use(await TestLaptop.connect(manager, `${name}@laptop`));
    await laptop.introduce(manager, agent);
    laptop.serveWith(process.port);
    const intercept: Person["intercept"] = (more = {}, called = "hello") =>
      laptop.intercept(called, app.port, "tcp", more);
    people.push({ laptop, process, intercept });
  }
  const caller = disposables.use(new KeptCaller(agent.agentPorts[0]!));
  return { manager, app, agent, people, caller, port: agent.agentPorts[0]! };
}

const userIs = (name: string): { readonly filter: string } => ({ filter: `request.headers["x-user"] == "${name}"` });
const whoAnswers = async (caller: KeptCaller, asked: Asked = {}): Promise<string> => {
  const { status, body } = await caller.ask(asked);
  expect(status).toBe(200);
  return body.split(" ")[0]!;
};

describe("two people on one port", () => {
  test("get their own requests of one kept connection, and the application all others", async () => {
    const { people, caller, app } = await shop("ann", "bob");
    for (const [person, name] of [
      [people[0]!, "ann"],
      [people[1]!, "bob"],
    ] as const) {
      expect((await person.intercept(userIs(name))).state).toBe("active");
    }
    const before = await caller.ask();
    const turns = ["ann", "bob", "app", "bob", "ann", "ann", "app", "app", "bob"];
    for (let index = 0; index < 300; index += 1) {
      const name = turns[index % turns.length]!;
      const headers: Record<string, string> = name === "app" ? {} : { "x-user": name };
      const got = await caller.ask({ headers, path: `/${index}` });
      expect([got.status, got.body.split(" ")[0], got.localPort]).toEqual([200, name, before.localPort]);
    }
    expect([people[0]!.process.seen.length, people[1]!.process.seen.length, app.seen.length]).toEqual([100, 100, 101]);
    // One stream for each of them, however many requests.
    expect([people[0]!.laptop.arrived, people[1]!.laptop.arrived]).toEqual([1, 1]);
  });

  test("are told of each other when the same request may be both's", async () => {
    const { people } = await shop("ann", "bob");
    const [ann, bob] = people as [Person, Person];
    await ann.intercept({ filter: 'request.path.startsWith("/cart")' });
    const filter = 'request.method == "GET"';
    await expect(bob.intercept({ filter })).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(
        /is intercepted by ann@laptop \(intercept "hello", since 0 s\) for requests that match request\.path\.startsWith\("\/cart"\)$/,
      ),
      hint: expect.stringContaining("--allow-overlap"),
    });
    await expect(bob.intercept()).rejects.toMatchObject({ code: "conflict" });
    expect((await bob.intercept({ filter: 'request.path == "/till"' })).state).toBe("active");
  });

  test("who allow it share: the older is asked first, what takes everything last", async () => {
    const { people, caller, port } = await shop("bob", "ann", "eve");
    const [bob, ann, eve] = people as [Person, Person, Person];
    await eve.intercept();
    expect((await bob.intercept({ filter: 'request.method == "GET"', allowOverlap: true })).overlaps).toMatchObject([
      { client: "eve@laptop", first: false },
    ]);
    const info = await ann.intercept({ ...userIs("ann"), allowOverlap: true });
    expect(info.overlaps).toMatchObject([
      { client: "bob@laptop", name: "hello", filter: 'request.method == "GET"', first: true },
      { client: "eve@laptop", first: false },
    ]);
    const headers = { "x-user": "ann" };
    expect(await whoAnswers(caller, { headers })).toBe("bob");
    expect(await whoAnswers(caller, { headers, method: "PUT" })).toBe("ann");
    expect(await whoAnswers(caller, { method: "PUT" })).toBe("eve");
    await bob.laptop.remove(`${bob.laptop.sessionId}:hello`);
    expect(await whoAnswers(caller, { headers })).toBe("ann");
    // Who takes everything never shares with another who does.
    await expect(bob.intercept({ allowOverlap: true })).rejects.toMatchObject({ code: "conflict" });
    expect(port).toBeGreaterThan(0);
  });
});

interface Kind {
  readonly name: string;
  readonly flags: FilterFlags;
  readonly matched: (id: string) => Asked;
  readonly unmatched: Asked;
}
const json = (text: string): Pick<Asked, "method" | "body"> => ({ method: "PUT", body: Buffer.from(text) });
/** What filter-table.test.ts does not have: bodies as they come, and an id in a header of its own. */
const kinds: readonly Kind[] = [
  {
    name: "body in chunks",
    flags: { httpBody: "^ann$" },
    matched: () => ({ ...json("ann"), chunked: true }),
    unmatched: { ...json("annn"), chunked: true },
  },
  {
    name: "body asked for",
    flags: { httpBody: "ann" },
    matched: () => ({ ...json("ann"), headers: { expect: "100-continue" } }),
    unmatched: { ...json("bob"), headers: { expect: "100-continue" } },
  },
  {
    name: "body that is too long",
    flags: { httpBody: "z" },
    matched: () => json(`z${"y".repeat(65_000)}`),
    unmatched: json(`z${"y".repeat(70_000)}`),
  },
  {
    name: "auto in its header",
    flags: { httpHeader: ["auto"] },
    matched: (id) => ({ headers: { "x-telepresence-intercept-id": id } }),
    unmatched: { headers: { "x-telepresence-intercept-id": "someone:else" } },
  },
];

describe.each(kinds)("a filter on $name", ({ flags, matched, unmatched }) => {
  test("takes what matches, leaves the rest, and everything once its laptop is gone", async () => {
    const { people, caller, manager } = await shop("ann");
    const [ann] = people as [Person];
    const id = `${ann.laptop.sessionId}:hello`;
    expect((await ann.intercept({ filter: compileFlags(flags, id) })).state).toBe("active");
    expect(await whoAnswers(caller, unmatched)).toBe("app");
    expect(await whoAnswers(caller, matched(id))).toBe("ann");
    expect(await whoAnswers(caller, unmatched)).toBe("app");
    expect(await whoAnswers(caller, matched(id))).toBe("ann");
    ann.laptop.transport.destroy();
    await ann.laptop.session.closed;
    expect(await whoAnswers(caller, matched(id))).toBe("app");
    expect(manager.registry.list()[0]?.state).toBe("suspended");
    expect(ann.process.seen).toHaveLength(2);
  });
});

describe("a filter", () => {
  test("takes no connection that is not HTTP", async () => {
    const disposables = new AsyncDisposableStack();
    stack.push(disposables);
    const manager = disposables.use(await testManager());
    const app = disposables.use(await namedServer("app"));
    const agent = disposables.use(await testAgent({ containerPort: app.port }));
    const laptop = disposables.use(await TestLaptop.connect(manager));
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "tcp", { filter: "true" });
    for (const text of ["anything", "PRI * HTTP/3.0\r\n\r\n"]) {
      expect(await ask(agent.agentPorts[0]!, text)).toBe(`app:${text}`);
    }
    expect(laptop.arrived).toBe(0);
  });

  test("that is none is refused before anything happens, with its column", async () => {
    const { people, manager } = await shop("ann");
    await expect(people[0]!.intercept({ filter: "request.path == 3" })).rejects.toMatchObject({
      code: "usage",
      message: expect.stringContaining("column"),
    });
    expect(manager.registry.list()).toEqual([]);
  });

  test("on a body waits for it whatever the pieces, and what is malformed goes to the application", async () => {
    const { people, port } = await shop("ann");
    await people[0]!.intercept({ filter: 'request.body.contains("ann")' });
    const text =
      "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nan\r\n1\r\nn\r\n0\r\n\r\n";
    expect(await ask(port, text)).toContain("ann PUT / 3 ");
    expect(await ask(port, text.replace("1\r\nn", "z\r\nn"))).toContain("400 Bad Request");
    expect(people[0]!.process.seen).toEqual(["PUT /"]);
  });
});
