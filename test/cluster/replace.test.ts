// A container that a laptop's process replaces, with a real kubelet: no call fails on the way there and back, the
// template comes back to the byte whenever the daemon is killed, and what others changed meanwhile is theirs.
import { beforeAll, describe, expect, test } from "vitest";
import { randomFrom } from "#base/random-inputs.fake.ts";
import { countAnswers, datagramCommand, sendDatagrams, type SendingWay } from "./datagrams.ts";
import { Lab, apply, field, fixture, kubectl, report, rolledOut, until, webApp, toolsImage } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { aRandomMoment, seed } from "./random.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-replace";
const restricted = "it-replace-restricted";
const lab = new Lab({ managerNamespace: "it-replace-manager" });
const mate = new Lab({ managerNamespace: "it-replace-manager", laptop: 2 });

stage([lab, mate], namespace, restricted);
beforeAll(async () => {
  await kubectl("label", "namespace", restricted, "pod-security.kubernetes.io/enforce=restricted");
  await lab.ok("connect", "-n", namespace);
});

const exec = { exec: { command: ["python3", "-c", "pass"] }, periodSeconds: 2, timeoutSeconds: 5 };
/** All that the stand-in must do without. */
const container = {
  env: [
    { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    { name: "DRAIN_SECONDS", value: "4" },
    { name: "NODE_OPTIONS", value: "--require /app/none.js" },
  ],
  workingDir: "/samples",
  livenessProbe: exec,
  lifecycle: { preStop: { exec: { command: ["sleep", "1"] } } },
  resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "64Mi" } },
};

async function template(name: string): Promise<string> {
  return await field(namespace, `deployment/${name}`, ".spec.template");
}
async function deploy(name: string, more: object = {}): Promise<string> {
  await apply(namespace, ...webApp({ name, container, ...more }));
  await rolledOut(namespace, `deployment/${name}`);
  return await template(name);
}
/** Of containers that run: a pod that has ended is there for a moment more. */
async function images(name: string): Promise<string> {
  const running = `.status.containerStatuses[?(@.state.running)].image`;
  return await field(namespace, "pods", `.items[?(@.metadata.labels.app=="${name}")]${running}`);
}

describe("replace", () => {
  test("runs a process in the container's place, and puts it back, without a failed call", async () => {
    const before = await deploy("shop", { replicas: 2 });
    const load = await Load.start({ namespace, target: `http://shop.${namespace}/`, perSecond: 20 });
    const startMs = Date.now();
    await using server = lab.spawn(fixture("laptop-server.mjs", "8000"));
    await server.says("listens on 8000");
    const said = await lab.ok("replace", "shop");
    expect(said).toMatch(/Container name +: shop/);
    expect(await images("shop")).not.toContain(toolsImage);
    await load.answeredBy(/^laptop$/, Date.now(), { inARow: 30 });
    expect(await lab.ok("list", "-r")).toContain("container shop is replaced by");
    const refused = await mate.cli(["intercept", "shop", "-n", namespace, "--port", "18741"]);
    expect(refused.code).not.toBe(0);
    report("an intercept of somebody else", refused.stderr.trim());
    await lab.ok("leave", "shop");
    await load.answeredBy(/^shop-/, Date.now(), { inARow: 30 });
    const calls = await load.calls(startMs);
    report("replace and leave, 2 pods", { calls: calls.length, ...countByWho(calls) });
    expect(failures(calls, startMs)).toEqual([]);
    await lab.ok("uninstall", "--agent", "shop");
    expect(await template("shop")).toBe(before);
    await kubectl("delete", "-n", namespace, "deployment/load", "--wait=false");
  });

  test("says who replaced it when nobody answers, and quit puts it back", async () => {
    const before = await deploy("quiet");
    const said = await lab.cli(["replace", "quiet", "--port", "18742", "--env-json", "quiet.json"]);
    expect(said).toMatchObject({ code: 0, stderr: "" });
    const environment: unknown = JSON.parse((await lab.sh("cat quiet.json")).stdout);
    report("environment of the replaced container", environment);
    expect(environment).toMatchObject({ PYTHONUNBUFFERED: "1", DRAIN_SECONDS: "4" }); // of the image, of the template
    const answer = await lab.sh(`curl -sS -m 5 -w '%{http_code}' http://quiet.${namespace}/`);
    report("nobody listens on the laptop", answer.stdout.trim());
    expect(answer.stdout).toMatch(/container quiet of deployment quiet is replaced by .*\n503$/s);
    await lab.quit();
    expect(await template("quiet")).not.toContain("stand-in");
    await lab.ok("connect", "-n", namespace);
    await lab.ok("uninstall", "--agent", "quiet");
    expect(await template("quiet")).toBe(before);
  });

  test("leaves what a release changed meanwhile", async () => {
    await deploy("released");
    await lab.ok("replace", "released", "--port", "18743");
    await kubectl("set", "env", "-n", namespace, "deployment/released", "RELEASE=2");
    await kubectl("set", "image", "-n", namespace, "deployment/released", `released=${toolsImage}`);
    await lab.ok("leave", "released");
    await lab.ok("uninstall", "--agent", "released");
    await rolledOut(namespace, "deployment/released");
    const after = JSON.parse(await template("released")) as { spec: { containers: [Record<string, unknown>] } };
    const [app] = after.spec.containers;
    expect(app).toMatchObject({
      image: toolsImage,
      command: ["python3", "/samples/hello.py"],
      ...container,
      env: [...container.env, { name: "RELEASE", value: "2" }],
    });
  });

  test("takes every kind that has a template, one of two containers, and what pod security restricts", async () => {
    const fast = { terminationGracePeriodSeconds: 1 };
    const beside = { ...container, name: "beside", image: toolsImage, command: ["sleep", "3600"] };
    const [pair, pairService] = webApp({ name: "pair", container, pod: fast });
    const { template: made } = (pair as { spec: { template: { spec: { containers: object[] } } } }).spec;
    made.spec.containers.push({ ...beside, livenessProbe: undefined, lifecycle: undefined });
    const [each, eachService] = webApp({ name: "each", container, pod: fast });
    const { replicas: _replicas, ...daemonSet } = (each as { spec: { replicas: number } }).spec;
    const shapes = [
      ["statefulset", "shelf", namespace, webApp({ name: "shelf", kind: "StatefulSet", container, pod: fast })],
      ["daemonset", "each", namespace, [{ ...each, kind: "DaemonSet", spec: daemonSet }, eachService ?? {}]],
      ["deployment", "pair", namespace, [pair ?? {}, pairService ?? {}]],
      ["deployment", "strict", restricted, webApp({ name: "strict", container, pod: fast })],
    ] as const;
    await using server = lab.spawn(fixture("laptop-server.mjs", "18745-18748"));
    await server.says("listens on 18748");
    for (const [, , place, objects] of shapes) await apply(place, ...objects);
    const wholeWay = async ([kind, name, place]: (typeof shapes)[number], index: number): Promise<void> => {
      const target = `${kind}/${name}`;
      await rolledOut(place, target);
      const before = await field(place, target, ".spec.template");
      const url = `http://${name}.${place}/`;
      const answer = async (): Promise<string> =>
        /^x-pod: (.*?)\r?$/im.exec((await lab.sh(`curl -sS -m 5 -D- -o /dev/null ${url}`)).stdout)?.[1] ?? "";
      const startMs = Date.now();
      await lab.ok("replace", target, "-n", place, "--container", name, "--port", `${18745 + index}:http`);
      const replacedMs = Date.now() - startMs;
      await until(`the laptop's answer at ${url}`, async () => (await answer()) === "laptop");
      const running = await field(place, target, ".spec.template.spec.containers[*].image");
      await lab.ok("leave", name, "-n", place);
      await until(`the application's answer at ${url}`, async () => (await answer()).startsWith(`${name}-`));
      await lab.ok("uninstall", "--agent", name, "-n", place);
      expect(await field(place, target, ".spec.template")).toBe(before);
      report(`replace ${target} in ${place}`, { replacedMs, running });
      expect(running.split(" ").filter((image) => image === toolsImage)).toHaveLength(name === "pair" ? 1 : 0);
    };
    await Promise.all(shapes.map(wholeWay));
  });

  test("refuses what has no template, before anything is touched", async () => {
    const [deployment] = webApp({ name: "loose" });
    const { template: loose } = (deployment as { spec: { template: object } }).spec;
    await apply(namespace, { apiVersion: "v1", kind: "Pod", ...loose, metadata: { name: "loose" } });
    const refused = await lab.cli(["replace", "pod/loose", "--port", "18746:8000"]);
    report("replace pod/loose", refused.stderr.trim());
    expect(refused.stderr).toContain(
      "pod loose cannot be replaced: the containers of a pod that runs cannot be changed",
    );
    await kubectl("delete", "-n", namespace, "pod/loose", "--wait=false");
  });

  test("takes a consumer that has no port", async () => {
    const consumer = { command: ["sleep", "3600"], readinessProbe: undefined, livenessProbe: undefined, ports: [] };
    const before = await deploy("consumer", { ports: [], servicePorts: [], container: { ...container, ...consumer } });
    expect(await lab.ok("replace", "consumer")).toMatch(/Container name +: consumer/);
    expect(await images("consumer")).not.toContain(toolsImage);
    expect(await lab.ok("list", "-r")).toContain("container consumer is replaced by");
    await lab.ok("leave", "consumer");
    await lab.ok("uninstall", "--agent", "consumer");
    expect(await template("consumer")).toBe(before);
  });

  test("takes datagrams as well, on a number with TCP and alone", async () => {
    const ports = [
      { name: "dns", containerPort: 5300, protocol: "UDP" },
      { name: "dns-tcp", containerPort: 5300 },
    ];
    const services = [
      { name: "dns", port: 53, protocol: "UDP" },
      { name: "dns-tcp", port: 53 },
    ];
    const app = { ...container, command: datagramCommand, livenessProbe: undefined, lifecycle: undefined };
    const probed = { ...app, readinessProbe: { tcpSocket: { port: 5300 } } };
    const shapes = [
      { name: "both", port: 18749, ports, servicePorts: services, container: probed },
      {
        name: "alone",
        port: 18750,
        ports: ports.slice(0, 1),
        servicePorts: services.slice(0, 1).map((item) => ({ ...item, targetPort: "dns" })),
        container: { ...app, readinessProbe: undefined },
      },
    ].map((shape) => ({ ...shape, pod: { terminationGracePeriodSeconds: 1 } }));
    const wholeWay = async ({ name, port, ...made }: (typeof shapes)[number]): Promise<void> => {
      const before = await deploy(name, {
        ...made,
        servicePorts: made.servicePorts.map((item) => ({ targetPort: 5300, ...item })),
      });
      const send = async (how: SendingWay, times = 20): Promise<Readonly<Record<string, number>>> =>
        countAnswers(await sendDatagrams({ namespace, service: name, caller: `caller-${name}` }, times, how));
      await startToolsPod(namespace, `caller-${name}`);
      expect(await send("keep", 1)).toEqual({ app: 1 });
      await using process = lab.spawn(fixture("laptop-datagrams.mjs", String(port)));
      await process.says("laptop listens");
      expect(await lab.ok("replace", name, "--port", `${port}:dns`)).toContain(`5300 -> ${port} UDP`);
      expect(await images(name)).not.toContain(toolsImage);
      // A flow that kube-proxy has sent to a pod stays with it until that pod is gone.
      await until("the laptop's answer", async () => (await send("keep", 1))["laptop"] === 1);
      const served = [await send("fresh"), await send("keep"), await send("used")];
      process.kill("SIGKILL");
      await process.ends();
      const away = await send("used", 2);
      const why = await lab.ok("why", name);
      await lab.ok("leave", name);
      await until("the application's answer", async () => (await send("keep", 1))["app"] === 1);
      const after = [await send("fresh"), await send("keep")];
      await lab.ok("uninstall", "--agent", name);
      expect(await template(name)).toBe(before);
      report(`replace of UDP, ${name}`, { served, away, after });
      expect(served).toEqual([{ laptop: 20 }, { laptop: 20 }, { laptop: 20 }]);
      expect(away).toEqual({ lost: 2 });
      expect(why).toContain("the application does not listen on UDP port 5300");
      expect(after).toEqual([{ app: 20 }, { app: 20 }]);
    };
    await Promise.all(shapes.map(wholeWay));
  });

  test("takes a CronJob by a job of ours, while its schedule rests", async () => {
    const [deployment, reportService] = webApp({
      name: "daily",
      container: { ...container, livenessProbe: undefined },
    });
    const { template: made } = (deployment as { spec: { template: { spec: object } } }).spec;
    const env = [...container.env, { name: "REPORT", value: "of yesterday" }];
    const jobTemplate = {
      spec: { template: { ...made, spec: { ...made.spec, restartPolicy: "Never" } }, completions: 3, parallelism: 3 },
    };
    (made.spec as { containers: [{ env: object[] }] }).containers[0].env = env;
    const spec = { schedule: "0 0 30 2 *", jobTemplate };
    await apply(
      namespace,
      { apiVersion: "batch/v1", kind: "CronJob", metadata: { name: "daily" }, spec },
      reportService ?? {},
    );
    const cronJob = async (): Promise<unknown> => {
      const { metadata, spec: found } = JSON.parse(
        await kubectl("get", "-n", namespace, "cronjob/daily", "-o", "json"),
      ) as { readonly metadata: { readonly annotations: Record<string, string> }; readonly spec: object };
      return { ...found, marks: Object.keys(metadata.annotations).filter((name) => name.startsWith("telepresence")) };
    };
    const jobs = async (): Promise<string> => await field(namespace, "jobs", ".items[*].metadata.name");
    const before = await cronJob();
    const said = await lab.ok("replace", "daily", "--port", "18751:http", "--", "sh", "-c", 'echo "report $REPORT"');
    expect(said).toContain("report of yesterday");
    expect(await cronJob()).toEqual(before);

    await using server = lab.spawn(fixture("laptop-server.mjs", "18751"));
    await server.says("listens on 18751");
    await lab.ok("replace", "cronjob/daily", "--port", "18751:http");
    const answer = (): Promise<string> =>
      lab.sh(`curl -sS -m 5 -D- -o /dev/null http://daily.${namespace}/`).then((got) => got.stdout);
    await until("the laptop's answer", async () => /^x-pod: laptop/im.test(await answer()));
    expect(await field(namespace, "cronjob/daily", ".spec.suspend")).toBe("true");
    expect(await images("daily")).not.toContain(toolsImage);
    expect(await lab.ok("list", "-r")).toContain("container daily is replaced by");
    const refused = await mate.cli(["replace", "cronjob/daily", "-n", namespace, "--port", "18752:http"]);
    for (const pid of lab.pids("daemon")) process.kill(pid, "SIGKILL");
    const found = await lab.cli(["connect", "-n", namespace]);
    report("replace cronjob/daily", {
      jobs: said.trim(),
      connectAfterKill: found.stderr.trim(),
      mate: refused.stderr.trim(),
    });
    expect(found.stderr).toContain(
      "container daily of cronjob daily was still replaced by a process of yours that is gone",
    );
    expect(refused.stderr).toContain("of CronJob daily is intercepted by");
    expect(await cronJob()).toEqual(before);
    await until("no job of ours", async () => (await jobs()) === "");
  });

  test("comes back whenever the daemon is killed, by connect or by anybody's uninstall", async () => {
    const before = await deploy("killed");
    const random = randomFrom(seed);
    const found: Record<string, number> = {};
    for (let round = 0; round < 6; round += 1) {
      await lab.ok("connect", "-n", namespace);
      const running = lab.start(["replace", "killed", "--port", "18744"]);
      await aRandomMoment(random, round < 4 ? 2500 : 15_000);
      for (const pid of lab.pids("daemon")) process.kill(pid, "SIGKILL");
      await running[Symbol.asyncDispose]();
      const isReplaced = (await template("killed")).includes("stand-in");
      const byUninstall = round % 2 === 1;
      // Killed so early that there is no agent either, there is nothing to uninstall.
      if (byUninstall) await mate.cli(["uninstall", "--agent", "killed", "-n", namespace, "--yes"]);
      else await lab.ok("connect", "-n", namespace);
      expect(await template("killed")).not.toContain("stand-in");
      const key = `${isReplaced ? "replaced" : "not yet"}, ${byUninstall ? "uninstall" : "connect"}`;
      found[key] = (found[key] ?? 0) + 1;
      if (byUninstall) expect(await template("killed")).toBe(before);
      await until("no daemon", () => lab.pids("daemon").length === (byUninstall ? 0 : 1));
    }
    report("daemon killed at random moments of replace", { seed, rounds: 6, ...found });
  });
});
