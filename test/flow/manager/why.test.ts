// `telepresence why` at its source: the agent tells which intercept took each request, what every other one said, and who
// answered. Story of the original: a header with a typo looked like an intercept that does not work, and nothing told
// the two apart.
import { connect } from "node:net";
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import type { Agent } from "#agent/agent.ts";
import type { InterceptSpec } from "#wire/manager-api.ts";
import type { SupposedRequest, WhyAnswer } from "#wire/why.ts";
import { KeptCaller, httpServer } from "./http-ends.ts";
import { TestLaptop, ask, askAgent, namedServer, never, testAgent, testManager } from "./harness.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

async function shop(...names: readonly string[]) {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const manager = disposables.use(await testManager());
  const app = disposables.use(await httpServer("app"));
  const agent = disposables.use(await testAgent({ containerPort: app.port }));
  const people: { laptop: TestLaptop; intercept: (more?: Partial<InterceptSpec>) => Promise<unknown> }[] = [];
  for (const name of names) {
    const process = disposables.use(await httpServer(name));
    const laptop = disposables.use(await TestLaptop.connect(manager, `${name}@laptop`));
    await laptop.introduce(manager, agent);
    laptop.serveWith(process.port);
    people.push({ laptop, intercept: (more = {}) => laptop.intercept("hello", app.port, "tcp", more) });
  }
  const caller = disposables.use(new KeptCaller(agent.agentPorts[0]!));
  return { agent, app, people, caller, port: agent.agentPorts[0]! };
}

const userIs = (name: string) => ({ filter: `request.headers["x-user"] == "${name}"`, allowOverlap: true });
const why = (agent: Agent, more: { withQuery?: boolean; suppose?: SupposedRequest } = {}): Promise<WhyAnswer> =>
  askAgent(agent, (rpc) => rpc.call("why", { limit: 20, ...more }, never));
const nameOf = ({ intercepts }: WhyAnswer, index: number | undefined): string | undefined =>
  index === undefined ? undefined : intercepts[index]?.client;
/** Who took it, who refused and by which condition, who answered with what. */
const summary = (answer: WhyAnswer) =>
  answer.decisions.map(({ method, target, taken, refused, answeredBy, status }) => ({
    line: `${method} ${target}`,
    taken: nameOf(answer, taken),
    refused: refused.map(({ intercept, conditions }) => [
      nameOf(answer, intercept),
      ...conditions.map(({ text, value, reason }) => `${text}: ${value ?? reason}`),
    ]),
    answered: `${answeredBy} ${status}`,
  }));

describe("the last requests", () => {
  test("name who took each, what the others said, and who answered", async () => {
    const { agent, people, caller } = await shop("ann", "bob");
    await caller.ask({ path: "/before" });
    for (const [index, name] of ["ann", "bob"].entries()) await people[index]!.intercept(userIs(name));
    await caller.ask({ headers: { "x-user": "bob" }, path: "/cart?secret=1", method: "PUT" });
    await caller.ask({ headers: { "x-user": "ann" } });
    await caller.ask({ headers: { "x-user": "eve" }, path: "/none" });
    await caller.ask({ path: "/absent" });
    const isAnn = 'request.headers["x-user"] == "ann"';
    const isBob = 'request.headers["x-user"] == "bob"';
    const absent = 'request.headers["x-user"] is absent';
    const answer = await why(agent);
    expect(summary(answer)).toEqual([
      { line: "GET /before", taken: undefined, refused: [], answered: "application 200" },
      { line: "PUT /cart", taken: "bob@laptop", refused: [["ann@laptop", `${isAnn}: false`]], answered: "laptop 200" },
      { line: "GET /", taken: "ann@laptop", refused: [], answered: "laptop 200" },
      {
        line: "GET /none",
        taken: undefined,
        refused: [
          ["ann@laptop", `${isAnn}: false`],
          ["bob@laptop", `${isBob}: false`],
        ],
        answered: "application 200",
      },
      {
        line: "GET /absent",
        taken: undefined,
        refused: [
          ["ann@laptop", `${isAnn}: ${absent}`],
          ["bob@laptop", `${isBob}: ${absent}`],
        ],
        answered: "application 200",
      },
    ]);
    // What a caller sends in headers, in a query, or in a body is nobody's to read here.
    expect(JSON.stringify(answer)).not.toMatch(/secret|eve/);
    expect((await why(agent, { withQuery: true })).decisions[1]?.target).toBe("/cart?secret=1");
  });

  test("are explained by the filters of their time: a later filter learns nothing of them", async () => {
    const { agent, people, caller } = await shop("ann", "bob");
    await people[0]!.intercept(userIs("ann"));
    await caller.ask({ headers: { "x-user": "secret" } });
    await people[1]!.intercept({ filter: 'request.headers["x-user"].startsWith("s")', allowOverlap: true });
    expect((await why(agent)).intercepts.map(({ client }) => client)).toEqual(["ann@laptop"]);
  });

  test("name the laptop that did not take one, and a probe that it was spared", async () => {
    const { agent, people, caller } = await shop("ann");
    const { laptop, intercept } = people[0]!;
    await intercept();
    laptop.onIncoming = (incoming) => incoming.reject("refused", "nothing listens on port 8000");
    await caller.ask({ path: "/refused" });
    await caller.ask({ path: "/healthz", headers: { "user-agent": "kube-probe/1.34" } });
    const answer = await why(agent);
    expect(answer.decisions).toMatchObject([
      { target: "/refused", taken: 0, left: expect.stringContaining("nothing listens"), answeredBy: "application" },
      { target: "/healthz", isProbe: true, refused: [], answeredBy: "application" },
    ]);
  });

  test("name the answer that is the agent's own", async () => {
    const { agent, people, caller } = await shop("ann");
    const { laptop, intercept } = people[0]!;
    await intercept({ onRefused: "fail" });
    laptop.onIncoming = (incoming) => incoming.reject("refused", "nothing listens on port 8000");
    expect((await caller.ask()).status).toBe(502);
    const [decision] = (await why(agent)).decisions;
    expect(decision).toMatchObject({ taken: 0, answeredBy: "agent", status: 502 });
    expect(decision?.failure).toContain("did not take the request");
  });

  test("name the application after the link was lost", async () => {
    const { agent, people, caller } = await shop("ann");
    await people[0]!.intercept();
    await caller.ask();
    people[0]!.laptop.transport.destroy();
    await expect.poll(async () => (await caller.ask()).body.split(" ")[0]).toBe("app");
    const { decisions } = await why(agent);
    expect([decisions[0]?.answeredBy, decisions.at(-1)?.answeredBy]).toEqual(["laptop", "application"]);
  });

  test("are connections where nobody speaks HTTP", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using agent = await testAgent({ containerPort: app.port });
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await laptop.introduce(manager, agent);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
    await laptop.intercept("hello", app.port);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("laptop:x");
    const open = connect(agent.agentPorts[0]!, "127.0.0.1");
    open.write("y");
    await expect.poll(async () => (await why(agent)).decisions.length).toBe(3);
    expect((await why(agent)).decisions).toMatchObject([
      { source: "127.0.0.1", answeredBy: "application", durationMs: expect.any(Number) },
      { source: "127.0.0.1", taken: 0, answeredBy: "laptop", durationMs: expect.any(Number) },
      { source: "127.0.0.1", taken: 0, answeredBy: "laptop" },
    ]);
    expect((await why(agent)).decisions[2]?.durationMs).toBeUndefined();
    open.destroy();
    await once(open, "close");
  });
});

describe("a request that nobody has sent", () => {
  const supposed = (target: string, headers: Record<string, string> = {}, method = "GET"): SupposedRequest => ({
    method,
    target,
    headers: Object.entries(headers).map(([name, value]) => ({ name, value })),
  });
  const verdictOf = async (agent: Agent, suppose: SupposedRequest) => {
    const answer = await why(agent, { suppose });
    const [verdict] = answer.verdicts;
    return {
      taken: nameOf(answer, verdict?.taken),
      undecided: nameOf(answer, verdict?.undecided),
      isProbe: verdict?.isProbe,
      rules: verdict?.rules.map(({ intercept, matched, joined, conditions }) => [
        nameOf(answer, intercept),
        matched,
        joined,
        ...conditions.map(({ value }) => value),
      ]),
    };
  };

  test("is judged rule by rule, in the order in which they are asked", async () => {
    const { agent, people, app } = await shop("ann", "bob", "eve");
    await people[0]!.intercept({ filter: 'request.path.startsWith("/api") && request.method == "GET"' });
    await people[1]!.intercept({ filter: 'request.path == "/till" || request.host == "till"', allowOverlap: true });
    expect(await verdictOf(agent, supposed("/api/x?y=z", { Host: "till:80" }))).toEqual({
      taken: "ann@laptop",
      undecided: undefined,
      isProbe: undefined,
      rules: [
        ["ann@laptop", true, "&&", true, true],
        ["bob@laptop", true, "||", false, true],
      ],
    });
    expect(await verdictOf(agent, supposed("/other"))).toMatchObject({
      taken: undefined,
      rules: [
        ["ann@laptop", false, "&&", false, true],
        ["bob@laptop", false, "||", false, false],
      ],
    });
    await people[2]!.intercept({ allowOverlap: true });
    expect(await verdictOf(agent, supposed("/other"))).toMatchObject({ taken: "eve@laptop" });
    expect(await verdictOf(agent, supposed("/other", { "user-agent": "kube-probe/1.34" }))).toMatchObject({
      taken: undefined,
      isProbe: true,
      rules: [],
    });
    expect(app.seen).toEqual([]);
    expect((await why(agent)).decisions).toEqual([]);
  });

  test("is left open where only its body could decide", async () => {
    const { agent, people } = await shop("ann", "bob");
    await people[0]!.intercept({ filter: 'request.method == "POST" && request.body.contains("ann")' });
    await people[1]!.intercept({ filter: 'request.path == "/cart"', allowOverlap: true });
    expect(await verdictOf(agent, supposed("/cart", {}, "POST"))).toMatchObject({
      taken: "bob@laptop",
      undecided: "ann@laptop",
    });
    expect(await verdictOf(agent, supposed("/cart"))).toMatchObject({ taken: "bob@laptop", undecided: undefined });
  });

  test("is the application's where nothing is intercepted", async () => {
    const { agent } = await shop();
    expect((await why(agent, { suppose: supposed("/") })).verdicts).toEqual([]);
  });
});
