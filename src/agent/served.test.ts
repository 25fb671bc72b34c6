import { describe, expect, test } from "vitest";
import type { AgentPort, ServedIntercept } from "#wire/agent-api.ts";
import { ServedIntercepts } from "./served.ts";
import type { InboundOpener } from "./served.ts";

const ports: AgentPort[] = [
  { agentPort: 9900, containerPort: 80, containerName: "app", protocol: "tcp", takeover: "name" },
  { agentPort: 9901, containerPort: 80, containerName: "app", protocol: "udp", takeover: "name" },
];
const opener = (): InboundOpener => ({ open: () => Promise.reject(new Error("no")), countRefused: () => undefined });
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
    expect(served.find(80, "tcp")?.interceptId).toBe("a");
    expect(served.find(80, "udp")?.interceptId).toBe("b");
    expect(served.find(81, "tcp")).toBeUndefined();
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
    expect(served.find(80, "tcp")?.interceptId).toBe("b");
  });
  test("refuses ports that the agent does not have, and serves the rest", () => {
    const served = new ServedIntercepts(ports);
    const refused = served.set(opener(), [intercept("a", 99), intercept("b")]);
    expect(refused).toEqual([
      { id: "a", message: "port 99/tcp is not taken over by the pod's agent, which has 80/tcp, 80/udp" },
    ]);
    expect(served.find(80, "tcp")?.interceptId).toBe("b");
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
});
