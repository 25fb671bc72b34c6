import { once } from "node:events";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openRpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import { helloOf } from "#wire/hello.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import { startIntroductions, type IntroductionOptions } from "./introduction.ts";

const never = new AbortController().signal;

// An agent that a laptop only reads files with ended by itself after ten minutes.
test("whoever asks an agent who it is wants it to stay", async () => {
  let wanted = 0;
  const config = { workload: { kind: "Job", name: "once", namespace: "shop" }, ports: [], containerName: "app" };
  const identity = {
    fingerprint: "f".repeat(64),
    podName: "once-1",
    podUid: "u",
    podIps: [],
    version: "0.1.0",
    config,
  };
  const options = {
    host: "127.0.0.1",
    port: 0,
    identity,
    onWanted: () => (wanted += 1),
    hello: helloOf("agent"),
    clock: systemClock,
    log: silentLogger,
  } as unknown as IntroductionOptions;
  await using server = await startIntroductions(options);
  const transport = connect({ port: server.port, host: "127.0.0.1" });
  await once(transport, "connect");
  const laptop = {
    transport,
    role: "opener",
    hello: helloOf("laptop"),
    clock: systemClock,
    log: silentLogger,
  } as const;
  const session = await openSession({ ...laptop, signal: never });
  const rpc = openRpc({
    stream: await session.open({ kind: "rpc", api: "introduction" }, never),
    calls: introductionApi,
    log: silentLogger,
  });
  expect((await rpc.call("identify", {}, never)).podName).toBe("once-1");
  expect(wanted).toBe(1);
  session.destroy();
});
