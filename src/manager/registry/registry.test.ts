// Stories of the original that must not repeat here: only the recorded pod of several replicas delivered; intercepts
// were left behind by failed creates; a laptop that vanished without a word kept its intercept for a day and blocked
// everybody else; any pod could drive another's session.
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { interceptInfoSchema } from "#wire/manager-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import { FakeAgent, fingerprintOf, never, setup, specOf, trustOf, workload } from "./registry.fake.ts";

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const inbound = (interceptId: string, containerPort = 8080): Extract<OpenRequest, { kind: "inbound" }> => ({
  kind: "inbound",
  protocol: "tcp",
  interceptId,
  containerPort,
  source: { address: "10.9.9.9", port: 1 },
  podName: "x",
});

describe("Registry", () => {
  test("an intercept is active when an agent has confirmed it, on every replica", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1), trustOf(2), trustOf(3)]);
    const agents = [agent(1), agent(2), agent(3)];
    const info = await registry.create(ada.session, specOf("hello"), never);
    expect(info).toMatchObject({ state: "active", id: `${ada.session.id}:hello`, client: "ada@laptop" });
    expect(info.pods.map((pod) => pod.name)).toEqual(["hello-1", "hello-2", "hello-3"]);
    for (const { link } of agents) expect(link.last).toEqual(["hello"]);
  });

  test("an intercept waits, naming what it waits for, until its first agent comes", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    const info = await registry.create(ada.session, specOf("hello"), never);
    expect(info).toMatchObject({ state: "waiting", message: expect.stringContaining("no agent of Deployment hello") });
    registry.trust(ada.session, [trustOf(1)]);
    agent(1);
    await settle();
    expect(ada.link.intercepts[0]).toMatchObject({ state: "active" });
  });

  test("a session's lost link takes its intercepts from the agents at once and suspends them", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await settle();
    expect(one.link.last).toEqual([]);
    expect(registry.list()[0]).toMatchObject({ state: "suspended" });
    expect(registry.isTrusted(fingerprintOf(1))).toBe(false);
    expect(() => registry.route(one.record, inbound(`${ada.session.id}:hello`))).toThrow("link is lost");
  });

  test("a laptop that arrives anew replaces its session", async () => {
    const { registry, laptop, agent } = setup();
    const first = laptop("ada@laptop");
    registry.trust(first.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(first.session, specOf("hello"), never);
    const second = laptop("ada@laptop");
    expect(first.link.destroyed?.message).toContain("connected anew");
    expect(registry.list()).toEqual([]);
    registry.trust(second.session, [trustOf(1)]);
    registry.introduceAgent(one.record, [second.session.id]);
    const info = await registry.create(second.session, specOf("hello"), never);
    expect(info.state).toBe("active");
    expect(one.link.last).toEqual(["hello"]);
    registry.lose(first.session); // the old link's end comes late and changes nothing
    await settle();
    expect(registry.list()[0]?.state).toBe("active");
  });

  test("a port belongs to one session: the other is told who, and since when", async () => {
    const { clock, registry, laptop } = setup();
    const ada = laptop("ada@laptop");
    const bob = laptop("bob@desk");
    await registry.create(ada.session, specOf("hello"), never);
    await clock.advance(5 * 60_000);
    await expect(registry.create(bob.session, specOf("mine"), never)).rejects.toMatchObject({
      code: "conflict",
      message: 'port 8080/tcp of Deployment hello is intercepted by ada@laptop (intercept "hello", since 5 min)',
    });
    expect(registry.list()).toHaveLength(1);
    // Another port, or the same number of the other protocol, is free.
    await registry.create(bob.session, specOf("other", 9090), never);
    await registry.create(bob.session, specOf("udp", 8080, "udp"), never);
  });

  test("agents get filters in the order in which they are asked: oldest first, what takes everything last", async () => {
    const { clock, registry, laptop, agent } = setup();
    const [ada, bob, eve] = [laptop("ada@laptop"), laptop("bob@desk"), laptop("eve@box")];
    for (const { session } of [ada, bob, eve]) registry.trust(session, [trustOf(1)]);
    const one = agent(1);
    const allowOverlap = true;
    await registry.create(eve.session, specOf("all"), never);
    await clock.advance(1000);
    await registry.create(bob.session, { ...specOf("second"), filter: "true", allowOverlap }, never);
    await clock.advance(1000);
    // Eve takes everything, and neither has allowed it.
    await expect(
      registry.create(ada.session, { ...specOf("third"), filter: "request.method == 'GET'" }, never),
    ).rejects.toMatchObject({ code: "conflict", fields: { client: "eve@box" } });
    await registry.create(ada.session, { ...specOf("third"), filter: 'request.method == "GET"', allowOverlap }, never);
    expect(one.link.last).toEqual(["second", "third", "all"]);
    expect(registry.list().find((info) => info.spec.name === "all")?.overlaps).toHaveLength(2);
    await registry.depart(bob.session, never);
    expect(registry.list().find((info) => info.spec.name === "all")?.overlaps).toHaveLength(1);
  });

  test("an agent that knows no filters is not given any: it would take everything", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    one.link.filters = false;
    const info = await registry.create(ada.session, { ...specOf("hello"), filter: "true" }, never);
    expect(info).toMatchObject({ state: "error", message: expect.stringContaining("older version") });
    expect(one.link.last).toEqual([]);
  });

  test("an agent that cannot read TLS is not asked to", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    one.link.tls = false;
    const info = await registry.create(ada.session, { ...specOf("hello"), filter: "true", tls: {} }, never);
    expect(info).toMatchObject({
      state: "error",
      message: expect.stringContaining("older version, which cannot read TLS"),
    });
    expect(one.link.last).toEqual([]);
  });

  test.each([
    ["laptop", "error"],
    ["agent", "error"],
    ["app", "active"],
  ] as const)(
    "an agent that leaves every probe to the application is not asked for --probes %s: %s",
    async (probes, state) => {
      const { registry, laptop, agent } = setup();
      const ada = laptop("ada@laptop");
      registry.trust(ada.session, [trustOf(1)]);
      const one = agent(1);
      one.link.probes = false;
      expect(await registry.create(ada.session, { ...specOf("hello"), probes }, never)).toMatchObject({ state });
    },
  );

  test("datagrams cannot be filtered", async () => {
    const { registry, laptop } = setup();
    const ada = laptop("ada@laptop");
    await expect(
      registry.create(ada.session, { ...specOf("hello", 53, "udp"), filter: "true" }, never),
    ).rejects.toMatchObject({ code: "unsupported", message: expect.stringContaining("port 53/udp") });
  });

  test("a name is unique in its session", async () => {
    const { registry, laptop } = setup();
    const ada = laptop("ada@laptop");
    await registry.create(ada.session, specOf("hello"), never);
    await expect(registry.create(ada.session, specOf("hello", 9090), never)).rejects.toMatchObject({
      code: "intercept_exists",
    });
  });

  test("removal answers after the agents have confirmed, and streams under way still pass until then", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const info = await registry.create(ada.session, specOf("hello"), never);
    const confirm = Promise.withResolvers<void>();
    one.link.answer = () => confirm.promise;
    let removed = false;
    const removal = registry.remove(ada.session, info.id, never).then(() => (removed = true));
    await settle();
    expect(one.link.last).toEqual([]);
    expect(removed).toBe(false);
    expect(registry.route(one.record, inbound(info.id)).link).toBe(ada.link);
    confirm.resolve();
    await removal;
    expect(() => registry.route(one.record, inbound(info.id))).toThrow("does not exist");
    expect(ada.link.intercepts).toEqual([]);
  });

  test("removal does not wait longer than two seconds for an agent that is stuck", async () => {
    const { clock, registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const info = await registry.create(ada.session, specOf("hello"), never);
    one.link.answer = () => new Promise(() => undefined);
    const removal = registry.remove(ada.session, info.id, never);
    await clock.advance(2100);
    await removal;
    expect(registry.list()).toEqual([]);
  });

  test("depart ends the session and everything of it", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(ada.session, specOf("a"), never);
    await registry.create(ada.session, specOf("b", 9090), never);
    await registry.depart(ada.session, never);
    expect(one.link.last).toEqual([]);
    expect(registry.list()).toEqual([]);
    expect(registry.isTrusted(fingerprintOf(1))).toBe(false);
  });

  test("agents nobody connected vouches for are refused, and let go when their session is gone", async () => {
    const { clock, registry, laptop, agent } = setup();
    expect(() => agent(1)).toThrow("vouches");
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await registry.depart(ada.session, never);
    expect(one.link.closed).toBe(false);
    await clock.advance(120_000);
    expect(one.link.closed).toBe(true);
  });

  test("an agent serves only the sessions that vouch for it, and only its own workload", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    const bob = laptop("bob@desk");
    const elsewhere = { ...workload, name: "other" };
    registry.trust(ada.session, [trustOf(1), trustOf(2, elsewhere)]);
    const one = agent(1);
    const two = agent(2, elsewhere);
    const own = await registry.create(ada.session, specOf("hello"), never);
    const bobs = await registry.create(bob.session, specOf("bobs", 9090), never);
    expect(one.link.last).toEqual(["hello"]);
    expect(two.link.last).toEqual([]);
    expect(() => registry.route(two.record, inbound(own.id))).toThrow(expect.objectContaining({ code: "denied" }));
    expect(() => registry.route(one.record, inbound(bobs.id, 9090))).toThrow(
      expect.objectContaining({ code: "denied" }),
    );
    expect(() => registry.route(one.record, inbound(own.id, 9090))).toThrow(
      expect.objectContaining({ code: "denied" }),
    );
    expect(() => registry.route(one.record, inbound("nothing"))).toThrow(
      expect.objectContaining({ code: "not_found" }),
    );
    expect(registry.route(one.record, inbound(own.id)).link).toBe(ada.link);
    // Nobody else's intercept can be removed.
    await expect(registry.remove(bob.session, own.id, never)).rejects.toMatchObject({ code: "intercept_not_found" });
  });

  test("vouching for a key that somebody else's agent showed gives a session nothing of that agent", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const eve = laptop("eve@laptop");
    registry.trust(eve.session, [{ ...trustOf(1), podName: "stolen" }]);
    const stolen = await registry.create(eve.session, specOf("hello"), never);
    expect(stolen).toMatchObject({ state: "waiting", pods: [] });
    expect(one.link.last).toEqual([]);
    expect(() => registry.route(one.record, inbound(stolen.id))).toThrow(expect.objectContaining({ code: "denied" }));
    registry.countRefused(one.record, stolen.id, 5);
    expect(registry.list()[0]?.refusedByLaptop).toBe(0);
    // Nor does it keep the agent when its own laptop has gone.
    await registry.depart(ada.session, never);
    expect(one.record.untrustedSinceMs).toBeDefined();
    registry.introduceAgent(one.record, [eve.session.id]);
    await settle();
    expect(one.link.last).toEqual(["hello"]);
    expect(registry.route(one.record, inbound(stolen.id))).toMatchObject({ podName: "stolen" });
  });

  test("an agent of another workload than its laptop vouches for is refused, and named", () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    expect(() => agent(1, { ...workload, namespace: "bank" })).toThrow(
      "the agent of pod hello-1 is configured for Deployment hello in namespace bank, expected Deployment hello in namespace shop",
    );
  });

  test("an agent that comes back on a new link still serves those whom its old link named", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const old = agent(1);
    const bob = laptop("bob@desk");
    registry.trust(bob.session, [trustOf(1)]);
    registry.introduceAgent(old.record, [bob.session.id]);
    const link = new FakeAgent(1, workload);
    registry.connectAgent(link, [ada.session]);
    await registry.create(bob.session, specOf("hello"), never);
    expect(old.link.destroyed?.message).toContain("connected anew");
    expect(link.last).toEqual(["hello"]);
  });

  test("two sessions share an agent, each with its own port", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    const bob = laptop("bob@desk");
    registry.trust(ada.session, [trustOf(1)]);
    registry.trust(bob.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(ada.session, specOf("a"), never);
    await registry.create(bob.session, specOf("b", 9090), never);
    expect(one.link.last?.toSorted()).toEqual(["a", "b"]);
    registry.lose(ada.session);
    await settle();
    expect(one.link.last).toEqual(["b"]);
  });

  test("a lost agent is told to its laptops and its intercept waits again", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(ada.session, specOf("hello"), never);
    registry.loseAgent(one.record);
    await settle();
    expect(ada.link.lostAgents).toEqual(["uid-1"]);
    expect(ada.link.intercepts[0]).toMatchObject({ state: "waiting", pods: [] });
    agent(1);
    await settle();
    expect(ada.link.intercepts[0]).toMatchObject({ state: "active" });
  });

  test("what an agent cannot serve becomes an error with its reason; the rest is served", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const good = await registry.create(ada.session, specOf("good"), never);
    one.link.answer = (intercepts) => {
      const bad = intercepts.filter((intercept) => intercept.id.endsWith(":bad"));
      const refused = bad.map(({ id }) => ({ id, message: "port 9090 is not one of this agent's" }));
      return Promise.reject(new AppError("not_interceptable", "one intercept was refused", { fields: { refused } }));
    };
    const bad = await registry.create(ada.session, specOf("bad", 9090), never);
    expect(bad).toMatchObject({ state: "error", message: "port 9090 is not one of this agent's" });
    expect(registry.list().find((info) => info.id === good.id)?.state).toBe("active");
  });

  test("an agent that fails to take its set is cut, because nobody knows what it serves", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await settle();
    one.link.answer = () => Promise.reject(new AppError("timeout", "no answer"));
    await registry.create(ada.session, specOf("hello"), never);
    expect(one.link.destroyed).toMatchObject({ code: "timeout" });
  });

  test("changes during a call are folded into the next one", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await settle();
    const confirm = Promise.withResolvers<void>();
    one.link.answer = () => confirm.promise;
    const creates = [8080, 8081, 8082, 8083].map((port) =>
      registry.create(ada.session, specOf(`p${port}`, port), never),
    );
    await settle();
    expect(one.link.sets).toHaveLength(2);
    confirm.resolve();
    const infos = await Promise.all(creates);
    expect(infos.every((info) => info.state === "active")).toBe(true);
    expect(one.link.sets).toHaveLength(3);
    expect(one.link.last).toHaveLength(4);
  });

  test("refused connections are counted for the intercept of an agent that may serve it", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    const elsewhere = { ...workload, name: "other" };
    registry.trust(ada.session, [trustOf(1), trustOf(2, elsewhere)]);
    const one = agent(1);
    const two = agent(2, elsewhere);
    const info = await registry.create(ada.session, specOf("hello"), never);
    registry.countRefused(one.record, info.id, 3);
    registry.countRefused(two.record, info.id, 100);
    await settle();
    expect(ada.link.intercepts[0]?.refusedByLaptop).toBe(3);
  });

  test("an agent's absurd count stays a number that can be told", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const info = await registry.create(ada.session, specOf("hello"), never);
    for (let times = 0; times < 3; times++) registry.countRefused(one.record, info.id, Number.MAX_SAFE_INTEGER);
    await settle();
    const [told] = ada.link.intercepts;
    expect(interceptInfoSchema.safeParse(told).success).toBe(true);
    expect(told?.refusedByLaptop).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("a laptop that cannot be notified costs nobody else the news", async () => {
    const { registry, laptop } = setup();
    const [ada, bob] = [laptop("ada@laptop"), laptop("bob@desk")];
    ada.link.notifyIntercepts = () => {
      throw new AppError("internal", "it does not fit the API");
    };
    await Promise.all([
      registry.create(ada.session, specOf("hello", 8080), never),
      registry.create(bob.session, specOf("hello", 8081), never),
    ]);
    await settle();
    expect(bob.link.intercepts).toHaveLength(1);
  });

  test("callers' addresses are kept only where every agent says so of every port", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1), trustOf(2)]);
    const [one, two] = [agent(1), agent(2)];
    await registry.create(ada.session, specOf("hello"), never);
    const told = (): unknown => registry.list()[0]?.callerAddress;
    expect(told()).toBeUndefined();
    one.record.describeCallers([{ containerPort: 8080, protocol: "tcp", kept: true, reason: "" }]);
    expect(told()).toBeUndefined();
    two.record.describeCallers([{ containerPort: 8080, protocol: "tcp", kept: true, reason: "" }]);
    expect(told()).toEqual({ kept: true, reason: "" });
    two.record.describeCallers([{ containerPort: 8080, protocol: "tcp", kept: false, reason: "no module" }]);
    expect(told()).toEqual({ kept: false, reason: "no module" });
  });

  test("lost sessions are forgotten after a day", async () => {
    const { clock, registry, laptop } = setup();
    const ada = laptop("ada@laptop");
    await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await clock.advance(23 * 3_600_000);
    expect(registry.list()).toHaveLength(1);
    await clock.advance(2 * 3_600_000);
    expect(registry.list()).toEqual([]);
  });

  test("notifications that say nothing new are not sent", async () => {
    const { registry, laptop } = setup();
    const ada = laptop("ada@laptop");
    await registry.create(ada.session, specOf("hello"), never);
    await settle();
    const before = ada.link.notifications;
    registry.trust(ada.session, []);
    await settle();
    expect(ada.link.notifications).toBe(before);
  });
});
