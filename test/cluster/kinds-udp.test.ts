// Datagrams, the whole way on the real cluster: a service that has UDP and TCP on one number, as name servers do. A caller
// that keeps its socket and callers that come anew; the laptop's process there, away, and there again.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { countAnswers, datagramCommand, sendDatagrams, type SendingWay } from "./datagrams.ts";
import { Lab, apply, field, fixture, report, rolledOut, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-kinds-udp";
const lab = new Lab({ managerNamespace: "it-kinds-udp-manager", agent: "ephemeral" });

stage([lab], namespace);
beforeAll(async () => {
  const ports = [
    { name: "dns", containerPort: 5300, protocol: "UDP" },
    { name: "dns-tcp", containerPort: 5300 },
  ];
  const pod = { terminationGracePeriodSeconds: 1 };
  const container = { command: datagramCommand, readinessProbe: { tcpSocket: { port: 5300 } } };
  const both = (targets: readonly (string | number)[]): readonly { readonly [key: string]: unknown }[] => [
    { name: "dns", port: 53, targetPort: targets[0], protocol: "UDP" },
    { name: "dns-tcp", port: 53, targetPort: targets[1] },
  ];
  await apply(
    namespace,
    ...webApp({ name: "number", ports, servicePorts: both([5300, 5300]), container, pod }),
    ...webApp({ name: "named", ports, servicePorts: both(["dns", "dns-tcp"]), container, pod }),
  );
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, "deployment/number", "deployment/named");
  await lab.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await lab.cli(["uninstall", "--everything"]);
});

const send = (name: string, times: number, how: SendingWay): Promise<readonly string[]> =>
  sendDatagrams({ namespace, service: name, caller: "caller" }, times, how);
const tcpAnswer = async (name: string): Promise<string> => {
  const script = `import socket; print(socket.create_connection(("${name}", 53), 3).recv(64).decode())`;
  return (await cluster.kubectl(["exec", "-n", namespace, "caller", "--", "python3", "-c", script])).stdout.trim();
};

describe.each(["number", "named"])("service with a %s as target", (name) => {
  afterEach(async () => {
    await lab.cli(["leave", name]); // of a test that failed on its way
  });
  test.each(["ephemeral", "sidecar"] as const)("%s agent", async (agent) => {
    const callerIp = await field(namespace, "pod/caller", ".status.podIP");
    expect(await send(name, 1, "keep")).toEqual([`app 0 ${callerIp}`]);
    await using process = lab.spawn(fixture("laptop-datagrams.mjs", "18730"));
    await process.says("laptop listens");
    const said = await lab.ok("intercept", name, "--port", "18730:53/udp", "--agent", agent);
    expect(said).toContain("5300 -> 18730 UDP");
    // A flow that kube-proxy has sent to a pod stays with it until that pod is gone, also when a rollout has replaced it.
    for (const how of ["fresh", "keep"] as const) {
      await until(
        `the laptop's answer (${how})`,
        async () => (await send(name, 1, how))[0]?.startsWith("laptop") === true,
      );
    }
    const fresh = countAnswers(await send(name, 20, "fresh"));
    const kept = countAnswers(await send(name, 20, "keep"));
    const used = countAnswers(await send(name, 20, "used"));
    expect([fresh, kept, used]).toEqual([{ laptop: 20 }, { laptop: 20 }, { laptop: 20 }]);
    expect(await tcpAnswer(name)).toBe("app tcp"); // of the same number, and nobody's wish
    process.kill("SIGKILL");
    await process.ends();
    const away = [countAnswers(await send(name, 20, "used")), countAnswers(await send(name, 20, "fresh"))];
    expect(away).toEqual([{ app: 20 }, { app: 20 }]);
    const status = await lab.ok("list");
    expect(status).toMatch(/Caller address +: the pod's own while passed through/);
    await using again = lab.spawn(fixture("laptop-datagrams.mjs", "18730"));
    await again.says("laptop listens");
    await until("the laptop again", async () => (await send(name, 1, "keep"))[0]?.startsWith("laptop") === true);
    await lab.ok("leave", name);
    const after = [countAnswers(await send(name, 20, "fresh")), countAnswers(await send(name, 20, "keep"))];
    expect(after).toEqual([{ app: 20 }, { app: 20 }]);
    report(`UDP, ${name}, ${agent}`, { fresh, kept, processAway: away, after });
    expect(await lab.ok("uninstall", "--agent", name)).toMatch(/traffic-agent (removed|ends in)/);
    expect(await send(name, 1, "fresh")).toEqual([`app 0 ${callerIp}`]);
  });
});
