// The kernel's part is tested with packets in test/netns/caller-address.test.ts.
import { describe, expect, test } from "vitest";
import type { AgentPort } from "#wire/agent-api.ts";
import { describeCallers } from "./kept-callers.ts";
import type { CallerDialer } from "./kept-callers.ts";

const portOf = (takeover: AgentPort["takeover"], protocol: AgentPort["protocol"] = "tcp"): AgentPort => ({
  agentPort: 9900,
  containerPort: 80,
  containerName: "app",
  protocol,
  takeover,
});
const dialer = (obstacle?: string): CallerDialer => ({ obstacle, connect: () => Promise.resolve(undefined) });
const ofOne = (port: AgentPort, callers?: CallerDialer): unknown => describeCallers([port], callers)[0];

describe("describeCallers()", () => {
  test("says of a redirect nothing before it was tried out, and then what came of it", () => {
    const port = { containerPort: 80, protocol: "tcp" };
    expect(ofOne(portOf("redirect"))).toBeUndefined();
    expect(ofOne(portOf("redirect"), dialer())).toEqual({ ...port, kept: true, reason: "" });
    expect(ofOne(portOf("redirect"), dialer("no route"))).toEqual({ ...port, kept: false, reason: "no route" });
  });

  test("keeps nobody's address without NET_ADMIN or for datagrams", () => {
    expect(ofOne(portOf("name"))).toMatchObject({ kept: false, reason: "the agent has no NET_ADMIN" });
    expect(ofOne(portOf("redirect", "udp"), dialer())).toMatchObject({ kept: false });
  });
});
