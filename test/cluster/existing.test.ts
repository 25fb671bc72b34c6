// What becomes of connections that are older than an intercept, with an ephemeral agent that did not know them: `keep`
// leaves them, `drain` closes each when it is idle, `reset` closes all at once. Commands tell how many there are and of
// how many callers, and nothing else in the cluster is touched.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import * as layout from "#testbed/layout.ts";
import { Lab, apply, field, kubectl, report, rolledOut, toolsImage, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-existing";
const lab = new Lab({ managerNamespace: "it-manager", agent: "ephemeral" });
/** chosen: an idle connection is one of 5 s; the agent looks once a second. */
const drainedMs = 9000;

stage([lab], namespace);

const echoApp = {
  ports: [{ name: "tcp", containerPort: 7000 }],
  servicePorts: [{ name: "tcp", port: 7000, targetPort: 7000 }],
  container: {
    command: ["python3", "/samples/echo.py"],
    readinessProbe: { exec: { command: ["true"] }, periodSeconds: 1 },
  },
};

/** Starts fixtures/hold.mjs; gives a way to ask it. */
async function holder(): Promise<<T>(path: string) => Promise<T>> {
  const script = readFileSync(join(import.meta.dirname, "fixtures/hold.mjs"), "utf8");
  const command = ["node", "--input-type=module", "-e", script];
  const container = { name: "hold", image: toolsImage, imagePullPolicy: "IfNotPresent", command };
  const spec = { terminationGracePeriodSeconds: 1, containers: [container] };
  await apply(namespace, { apiVersion: "v1", kind: "Pod", metadata: { name: "hold" }, spec });
  await kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/hold", "--timeout=60s");
  const ip = await field(namespace, "pod/hold", ".status.podIP");
  const ask = async <T>(path: string): Promise<T> => {
    const args = ["-s", "--max-time", "20", `http://${ip}:8080/${path}`];
    return JSON.parse(await cluster.runIn(cluster.namespaces.node, "curl", args)) as T;
  };
  await until("the pod that holds connections", async () => (await ask<string[]>("states")).length === 0);
  return ask;
}

async function addressesOf(app: string): Promise<readonly string[]> {
  return (await field(namespace, "pods", `.items[?(@.metadata.labels.app=="${app}")].status.podIP`)).split(" ");
}
async function identity(): Promise<string> {
  const what = "{.metadata.uid} {.status.containerStatuses[*].restartCount}";
  return await field(namespace, "pods", `range .items[*]}${what} {end`);
}
const times = (count: number, state: string): string[] => new Array<string>(count).fill(state);

test("older connections are kept, drained or reset, and counted, with two pods and one caller", async () => {
  await apply(
    namespace,
    ...webApp({ name: "used", replicas: 2, ...echoApp }),
    ...webApp({ name: "other", ...echoApp }),
  );
  await rolledOut(namespace, "deployment/used", "deployment/other");
  await lab.ok("connect", "-n", namespace);
  const script = join(layout.checkoutRoot, "testbed/samples/echo.py");
  await using _echo = lab.spawn(["env", "PORT=18860", "python3", script]);
  await until("the laptop's echo", async () => (await lab.sh("ss -Hltn sport = :18860")).stdout !== "");
  const hold = await holder();
  const [first = "", second = ""] = await addressesOf("used");
  const [other = ""] = await addressesOf("other");
  // One question and its answer each. Of several the kernel does not always know who spoke last: those take 65 s.
  await hold(`open?to=${other}:7000&count=2`);
  await hold(`open?to=${first}:7000&count=4`);
  await hold(`open?to=${second}:7000&count=2`);
  await hold(`open?to=${second}:7000&count=1&everyMs=500`);
  const before = await identity();
  const intercept = async (existing: string): Promise<string> => {
    const { code, stderr } = await lab.cli(["intercept", "used", "--port", "18860", "--existing", existing]);
    expect(code).toBe(0);
    return stderr;
  };
  const older = async (): Promise<string> =>
    /(\d+ older connections? from \d+ callers?) still at the pod/.exec(await lab.ok("status"))?.[1] ?? "none";

  const kept = await intercept("keep");
  report("--existing keep", kept);
  expect(kept).toContain("7 older connections from 1 caller still go to the pod; `--existing drain` closes them");
  expect(await older()).toBe("7 older connections from 1 caller");
  await hold(`open?to=${first}:7000&count=1`); // newer: the laptop's, and none of them
  await new Promise((resolve) => setTimeout(resolve, drainedMs));
  expect(await older()).toBe("7 older connections from 1 caller");
  expect(await hold("states")).toEqual(times(10, "open"));
  await lab.ok("leave", "used");
  expect(await hold("states")).toEqual(times(10, "open"));

  await hold(`open?to=${second}:7000&count=2`); // idle, but for less than 5 s
  const drained = await intercept("drain");
  const startMs = Date.now();
  report("--existing drain", drained);
  expect(drained).toMatch(
    /\d older connections? from 1 caller still goe?s? to the pod; each is closed when it is idle/,
  );
  const counts = new Set<string>();
  await until(
    "the end of the idle ones",
    async () => {
      counts.add(await older());
      return counts.has("1 older connection from 1 caller");
    },
    { limitMs: 2 * drainedMs },
  );
  report("status while they are drained", { counts: [...counts], ms: Date.now() - startMs });
  const left = [...times(2, "open"), ...times(6, "ECONNRESET"), ...times(2, "open"), ...times(2, "ECONNRESET")];
  expect(await hold("states")).toEqual(left);
  expect(await hold("ask")).toBe(4);
  await lab.ok("leave", "used");

  await hold(`open?to=${first}:7000&count=3`);
  const reset = await intercept("reset");
  report("--existing reset", reset === "" ? "no warning" : reset);
  expect(reset).toBe("");
  expect(await older()).toBe("none");
  const states = await hold<string[]>("states");
  report("states after reset", states);
  // What goes to the other workload, and the stream that is the laptop's since the first intercept.
  expect(states).toEqual([
    ...times(2, "open"),
    ...times(6, "ECONNRESET"),
    "ECONNRESET",
    "open",
    ...times(5, "ECONNRESET"),
  ]);
  expect(await hold("ask")).toBe(3);
  await lab.ok("leave", "used");
  expect(await identity()).toBe(before);
});
