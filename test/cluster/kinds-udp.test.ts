// Datagrams, the whole way on the real cluster: a service that has UDP and TCP on one number, as name servers do. A caller
// that keeps its socket and callers that come anew; the laptop's process there, away, and there again.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, fixture, report, rolledOut, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-kinds-udp";
const lab = new Lab({ managerNamespace: "it-kinds-udp-manager", agent: "ephemeral" });

/** Answers datagrams with `app`, the datagram, and where it came from; TCP with `app tcp`. */
const application = `
import socket, threading
tcp = socket.create_server(("", 5300))
def serve():
    while True:
        peer, _ = tcp.accept()
        peer.sendall(b"app tcp")
        peer.close()
threading.Thread(target=serve, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 5300))
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(b"app " + data + b" " + peer[0].encode(), peer)
`;
/** Sends COUNT datagrams, one after the other, and prints each answer on a line; on one socket, or one each from a port
 * that the kernel chooses, or from ports that were used before. */
const caller = `
import socket, sys
host, port, count, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def fresh(number):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(3)
    if how == "keep": made.bind(("", 40000))
    if how == "used": made.bind(("", 41000 + number))
    return made
one = fresh(0)
for number in range(count):
    if number and how != "keep": one = fresh(number)
    one.sendto(str(number).encode(), (host, port))
    try: print(one.recv(4096).decode())
    except TimeoutError: print("lost")
`;

stage([lab], namespace);
beforeAll(async () => {
  const ports = [
    { name: "dns", containerPort: 5300, protocol: "UDP" },
    { name: "dns-tcp", containerPort: 5300 },
  ];
  const pod = { terminationGracePeriodSeconds: 1 };
  const container = { command: ["python3", "-u", "-c", application], readinessProbe: { tcpSocket: { port: 5300 } } };
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

async function send(name: string, count: number, how: "keep" | "fresh" | "used"): Promise<readonly string[]> {
  const host = await field(namespace, `service/${name}`, ".spec.clusterIP");
  const argv = ["exec", "-n", namespace, "caller", "--", "python3", "-c", caller, host, "53", String(count), how];
  return (await cluster.kubectl(argv, { timeoutMs: 120_000 })).stdout.trim().split("\n");
}
/** Who answered how many. */
function count(answers: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const answer of answers) {
    const who = answer.split(" ")[0] ?? "";
    counts[who] = (counts[who] ?? 0) + 1;
  }
  return counts;
}
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
    const fresh = count(await send(name, 20, "fresh"));
    const kept = count(await send(name, 20, "keep"));
    const used = count(await send(name, 20, "used"));
    expect([fresh, kept, used]).toEqual([{ laptop: 20 }, { laptop: 20 }, { laptop: 20 }]);
    expect(await tcpAnswer(name)).toBe("app tcp"); // of the same number, and nobody's wish
    process.kill("SIGKILL");
    await process.ends();
    const away = [count(await send(name, 20, "used")), count(await send(name, 20, "fresh"))];
    expect(away).toEqual([{ app: 20 }, { app: 20 }]);
    const status = await lab.ok("list");
    expect(status).toMatch(/Caller address +: the pod's own while passed through/);
    await using again = lab.spawn(fixture("laptop-datagrams.mjs", "18730"));
    await again.says("laptop listens");
    await until("the laptop again", async () => (await send(name, 1, "keep"))[0]?.startsWith("laptop") === true);
    await lab.ok("leave", name);
    const after = [count(await send(name, 20, "fresh")), count(await send(name, 20, "keep"))];
    expect(after).toEqual([{ app: 20 }, { app: 20 }]);
    report(`UDP, ${name}, ${agent}`, { fresh, kept, processAway: away, after });
    expect(await lab.ok("uninstall", "--agent", name)).toMatch(/traffic-agent (removed|ends in)/);
    expect(await send(name, 1, "fresh")).toEqual([`app 0 ${callerIp}`]);
  });
});
