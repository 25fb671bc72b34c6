// Runs on the laptop for strangers.test.ts: speaks to the manager as a laptop would, past the daemon that would refuse
// by itself, and asks it to dial what it must not. Prints one JSON line. `node stranger-driver.ts JSON`.
import { systemClock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import { createLogger } from "#base/log.ts";
import { openKube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import { openRpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import { protocolVersions } from "#wire/hello.ts";
import { managerApi, managerLaptopPort } from "#wire/manager-api.ts";

export interface StrangerArgs {
  readonly namespace: string;
  readonly pod: string;
  readonly targets: readonly { readonly address: string; readonly port: number }[];
  /** An intercept of somebody else that is asked to be removed. */
  readonly foreignIntercept: string;
}

const args = JSON.parse(process.argv[2] ?? "{}") as StrangerArgs;
const signal = AbortSignal.timeout(60_000);
const log = createLogger("silent", () => undefined);
const kube = openKube(await loadTarget({ flags: {}, cwd: process.cwd(), env: process.env as Record<string, string> }));
const { namespace, pod } = args;
const transport = await openPortForward(kube, { namespace, pod, port: managerLaptopPort, signal });
const hello = { protocol: protocolVersions, software: "0.0.0", role: "laptop" as const, features: [] };
const session = await openSession({ transport, role: "opener", hello, clock: systemClock, log, signal });

const outcome: Record<string, string> = {};
const attempt = async (name: string, work: () => Promise<unknown>): Promise<void> => {
  outcome[name] = await work().then(
    () => "allowed",
    (error: unknown) => `${toAppError(error).code}: ${toAppError(error).message}`,
  );
};

// before anybody has arrived
await attempt(
  "dial before arriving",
  async () => await session.open({ kind: "tcp", target: { address: "10.96.0.10", port: 53 } }, signal),
);
const rpc = openRpc({ stream: await session.open({ kind: "rpc", api: "manager" }, signal), calls: managerApi, log });
await rpc.call(
  "arrive",
  { client: "mallory@elsewhere", installId: "x", version: "0.0.0", namespace: "default" },
  signal,
);
for (const target of args.targets) {
  await attempt(`${target.address}:${target.port}`, async () => await session.open({ kind: "tcp", target }, signal));
}
await attempt(
  "remove somebody's intercept",
  async () => await rpc.call("intercept.remove", { id: args.foreignIntercept }, signal),
);
await attempt("open an inbound stream", async () => {
  const source = { address: "10.0.0.1", port: 1 };
  const request = {
    kind: "inbound",
    protocol: "tcp",
    interceptId: args.foreignIntercept,
    containerPort: 8000,
  } as const;
  return await session.open({ ...request, source, podName: "x" }, signal);
});
session.destroy();
kube.close();
process.stdout.write(`${JSON.stringify(outcome)}\n`);
