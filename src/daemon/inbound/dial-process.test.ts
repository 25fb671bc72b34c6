import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import { relayDatagrams } from "./dial-process.ts";

// A failed connect went for a connected one: the agent was told that the laptop has the flow, and it was lost.
test("a UDP flow whose process cannot be reached is rejected, so that the application gets it", async () => {
  const answered = Promise.withResolvers<string>();
  const incoming: IncomingStream = {
    request: {
      kind: "inbound",
      protocol: "udp",
      interceptId: "session:hello",
      containerPort: 53,
      source: { address: "10.0.0.9", port: 4000 },
      podName: "hello-1",
    },
    signal: new AbortController().signal,
    accept: () => {
      answered.resolve("accepted");
      throw new Error("accepted");
    },
    reject: (reason) => answered.resolve(reason),
  };
  // Broadcast needs a socket option that nobody sets, so the kernel refuses at once.
  const target = { containerPort: 53, protocol: "udp", targetHost: "255.255.255.255", targetPort: 53 } as const;
  relayDatagrams(incoming, target, silentLogger);
  expect(await answered.promise).toBe("internal");
});
