import { describe, expect, test } from "vitest";
import type { AgentPort, ServedIntercept } from "#wire/agent-api.ts";
import { ServedIntercepts } from "./served.ts";
import type { InboundOpener } from "./served.ts";

const ports: AgentPort[] = [
  { agentPort: 9900, containerPort: 80, containerName: "app", protocol: "tcp", takeover: "name" },
  { agentPort: 9901, containerPort: 80, containerName: "app", protocol: "udp", takeover: "name" },
];
const opener = (): InboundOpener => ({
  open: () => Promise.reject(new Error("no")),
  countRefused: () => undefined,
  countCopy: () => undefined,
  hold: () => undefined,
});
const intercept = (id: string, containerPort = 80, protocol: "tcp" | "udp" = "tcp"): ServedIntercept => ({
  id,
  client: `owner of ${id}`,
  ports: [{ containerPort, protocol, targetHost: "127.0.0.1", targetPort: 1 }],
});

describe("ServedIntercepts", () => {
  test("tells TCP and UDP of one number apart", () => {
    const served = new ServedIntercepts(ports);
    const manager = opener();
    expect(served.set(manager, [intercept("a"), intercept("b", 80, "udp")])).toEqual([]);
    expect(served.whole({ containerPort: 80, protocol: "tcp" })?.interceptId).toBe("a");
    expect(served.whole({ containerPort: 80, protocol: "udp" })?.interceptId).toBe("b");
    expect(served.whole({ containerPort: 81, protocol: "tcp" })).toBeUndefined();
  });
  test("the first manager keeps a port until it lets go", () => {
    const served = new ServedIntercepts(ports);
    const [first, second] = [opener(), opener()];
    served.set(first, [intercept("a")]);
    expect(served.set(second, [intercept("b")])).toEqual([
      { id: "b", message: "port 80/tcp is intercepted by owner of a through another traffic-manager" },
    ]);
    expect(served.set(first, [intercept("a")])).toEqual([]);
    served.clear(first);
    expect(served.set(second, [intercept("b")])).toEqual([]);
    served.clear(first);
    expect(served.whole({ containerPort: 80, protocol: "tcp" })?.interceptId).toBe("b");
  });
  test("refuses ports that the agent does not have, and serves the rest", () => {
    const served = new ServedIntercepts(ports);
    const refused = served.set(opener(), [intercept("a", 99), intercept("b")]);
    expect(refused).toEqual([
      { id: "a", message: "port 99/tcp is not taken over by the pod's agent, which has 80/tcp, 80/udp" },
    ]);
    expect(served.whole({ containerPort: 80, protocol: "tcp" })?.interceptId).toBe("b");
  });
  test("asks those with a filter in their order, then the one that takes everything", () => {
    const served = new ServedIntercepts(ports);
    const filtered = (id: string): ServedIntercept => ({ ...intercept(id), filter: "request.path == '/'" });
    expect(served.set(opener(), [intercept("all"), filtered("b"), filtered("a")])).toEqual([]);
    expect(served.of(ports[0]!).map(({ interceptId }) => interceptId)).toEqual(["b", "a", "all"]);
    expect(served.whole(ports[0]!)?.interceptId).toBe("all");
  });
  test("what has a filter takes no whole connection", () => {
    const served = new ServedIntercepts(ports);
    served.set(opener(), [{ ...intercept("a"), filter: "true" }]);
    expect([served.isTaken(ports[0]!), served.whole(ports[0]!)]).toEqual([true, undefined]);
  });
  test("two managers share a port only where no request could be both's", () => {
    const served = new ServedIntercepts(ports);
    const of = (id: string, path: string): ServedIntercept => ({
      ...intercept(id),
      filter: `request.path == "${path}"`,
    });
    served.set(opener(), [of("a", "/a")]);
    const refused = served.set(opener(), [of("b", "/b"), of("c", "/a"), intercept("all")]);
    expect(refused.map(({ id }) => id)).toEqual(["c", "all"]);
  });
  test("refuses filters that it does not understand, or that cannot be, and serves the rest", () => {
    const served = new ServedIntercepts(ports);
    const udp = { ...intercept("udp", 80, "udp"), filter: "true" };
    const refused = served.set(opener(), [{ ...intercept("new"), filter: "request.novelty" }, udp, intercept("b")]);
    expect(refused).toEqual([
      { id: "new", message: expect.stringContaining("does not understand") },
      { id: "udp", message: "port 80/udp has no requests to choose from" },
    ]);
    expect(served.whole(ports[0]!)?.interceptId).toBe("b");
  });
  test("of several wishes for older connections the one that goes furthest counts", () => {
    const served = new ServedIntercepts(ports);
    served.set(opener(), [
      { ...intercept("a"), filter: "true", existing: "drain" },
      { ...intercept("b"), filter: "true" },
    ]);
    expect(served.existingOf(ports[0]!)).toBe("drain");
  });
  test("tells listeners of changes, in the same tick", () => {
    const served = new ServedIntercepts(ports);
    const manager = opener();
    let changes = 0;
    served.onChange(() => (changes += 1));
    served.set(manager, [intercept("a")]);
    served.clear(manager);
    served.clear(manager);
    expect(changes).toBe(2);
  });

  test("keeps wiretaps apart: they exclude nobody, and a port with nothing else is taken over for them", () => {
    const served = new ServedIntercepts(ports);
    const [first, second] = [opener(), opener()];
    const tap = (id: string): ServedIntercept => ({ ...intercept(id), kind: "wiretap" });
    expect(served.set(first, [tap("a"), tap("b")])).toEqual([]);
    expect([served.isTaken(ports[0]!), served.whole(ports[0]!), served.isRead(ports[0]!)]).toEqual([
      true,
      undefined,
      true,
    ]);
    expect(served.set(second, [intercept("c"), tap("d")])).toEqual([]);
    expect(served.tapsOf(ports[0]!).map(({ interceptId }) => interceptId)).toEqual(["a", "b", "d"]);
    // Whoever takes everything takes TLS as it is: a wiretap must not change that.
    expect(served.isRead(ports[0]!)).toBe(false);
    served.clear(second);
    served.clear(first);
    expect([served.isTaken(ports[0]!), served.hasTaps]).toEqual([false, false]);
  });
});
