// What is tried on a cluster of each shape of addresses, a cluster of this file's own: connect, names, pods and services,
// datagrams, intercepts with and without a redirect and back, other addresses for what collides, and the laptop as it
// was. Laptop 1 has IPv4 alone, laptop 2 what the cluster has.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import * as layout from "#testbed/layout.ts";
import { call } from "./call.ts";
import type { Answer, Dialled } from "./caller.ts";
import { Lab, apply, field, fixture, kubectl, prepare, report, rolledOut, service, until, webApp } from "./lab.ts";
import { startToolsPod } from "./tools-pod.ts";

/** Where the samples are: nobody else is in this cluster. */
const namespace = "default";
const [one, two] = ([1, 2] as const).map((laptop) => new Lab({ laptop, agent: "ephemeral" })) as [Lab, Lab];
const greeting = "Hello from the cluster";
const isIpv6 = (address: string): boolean => address.includes(":");
const inUrl = (address: string): string => (isIpv6(address) ? `[${address}]` : address);
/** By the address that was asked. */
interface Seen {
  readonly pods: readonly string[];
  readonly services: readonly string[];
  readonly echo: readonly string[];
  readonly callers: readonly string[];
}
let seen: Seen;
let before: Readonly<Record<string, string>>;

const words = async (object: string, path: string): Promise<readonly string[]> =>
  JSON.parse(await field(namespace, object, path)) as readonly string[];
const podAddresses = async (app: string): Promise<readonly string[]> => {
  const all = JSON.parse(await kubectl("get", "pods", "-n", namespace, "-l", `app=${app}`, "-o", "json")) as {
    readonly items: readonly {
      readonly metadata: object;
      readonly status: { readonly podIPs: readonly { readonly ip: string }[] };
    }[];
  };
  const staying = all.items.filter(({ metadata }) => !("deletionTimestamp" in metadata));
  return staying.flatMap(({ status }) => status.podIPs.map(({ ip }) => ip));
};
const curl = async (lab: Lab, url: string): Promise<string> => {
  const { stdout, stderr } = await lab.sh(`curl -sS -m 10 '${url}'`);
  return stdout + stderr;
};
/** From a pod. */
const fromPod = async (url: string): Promise<string> =>
  await kubectl("exec", "-n", namespace, "caller", "--", "curl", "-sS", "-m", "10", url);
const datagram = `
import socket, sys
made = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
made.settimeout(3)
made.sendto(b"ping", (sys.argv[1], 7000))
try: print(made.recv(4096).decode())
except TimeoutError: print("lost")
`;
const datagramFromPod = async (address: string): Promise<string> =>
  (await kubectl("exec", "-n", namespace, "caller", "--", "python3", "-c", datagram, address)).trim();

export function tryFamily(): void {
  let found = false;
  beforeAll(async () => {
    found = (await cluster.status())[0]?.startsWith("the cluster is up") === true;
    await prepare();
    await Promise.all([one.quit(), two.quit()]);
    await prepareObjects();
  });
  afterAll(async () => {
    if (!found) await cluster.down(); // one that somebody works with stays
    else await one.cli(["uninstall", "--everything"]);
  });
  describe(`a laptop of IPv4 alone and a cluster of ${layout.family}`, () => {
    triesOfLaptop();
  });
  describe("an intercept", () => {
    triesOfIntercept();
  });
  describe("a laptop with what the cluster has", () => {
    triesOfSecond();
  });
}

async function prepareObjects(): Promise<void> {
  const both = { ipFamilyPolicy: "PreferDualStack" };
  await apply(
    namespace,
    ...webApp({ name: "number", servicePorts: [] }),
    service("number", [{ port: 80, targetPort: 8000 }], both),
    service(
      "edge",
      [{ port: 80, targetPort: "http" }],
      layout.family === "ipv6" ? { clusterIP: "fd10:96::f00" } : {},
      "hello",
    ),
  );
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, "deployment/number");
  seen = {
    pods: await podAddresses("hello"),
    services: await words("service/hello", ".spec.clusterIPs"),
    echo: await words("service/echo", ".spec.clusterIPs"),
    callers: (await field(namespace, "pod/caller", ".status.podIPs[*].ip")).split(" "),
  };
  report(`addresses, ${layout.family}`, seen);
  before = await one.traces();
}

interface Status {
  readonly root_daemon: { readonly subnets: readonly string[] };
}

function triesOfLaptop(): void {
  test("connects, and routes the ranges of every family that the cluster has", async () => {
    await one.ok("connect", "-n", namespace);
    const { subnets } = (await one.json<Status>("status")).root_daemon;
    report(`routed, ${layout.family}`, subnets);
    expect([...subnets].sort()).toEqual([...layout.serviceRanges, ...layout.nodePodRanges].sort());
  });
  test("names have the addresses that the cluster gives them, and no others", async () => {
    const server = layout.laptopAddresses(1).gateway;
    for (const type of ["A", "AAAA"]) {
      const expected = seen.services.filter((address) => isIpv6(address) === (type === "AAAA"));
      const name = `hello.${namespace}.svc.cluster.local`;
      const { rcode, answers } = await call<Answer>(one, "ask", { server, name, type });
      expect({ type, rcode, answers }).toEqual({ type, rcode: "NOERROR", answers: expected });
      expect((await call<Answer>(one, "ask", { server, name: `none.${name}`, type })).rcode).toBe("NXDOMAIN");
    }
    const { stdout } = await one.sh("getent ahosts hello");
    expect([...new Set(stdout.split("\n").flatMap((line) => line.split(" ")[0] || []))].sort()).toEqual(
      [...seen.services].sort(),
    );
    for (const address of seen.services) {
      expect((await one.sh(`getent hosts ${address}`)).stdout).toContain(`hello.${namespace}.svc.cluster.local`);
    }
  });
  test("programs call pods and services of every family", async () => {
    expect(seen.pods.map(isIpv6)).toEqual(layout.podRanges.map(isIpv6));
    expect(seen.services.map(isIpv6)).toEqual(layout.serviceRanges.map(isIpv6));
    for (const address of seen.pods) expect(await curl(one, `http://${inUrl(address)}:8000/`)).toContain(greeting);
    for (const host of [...seen.services.map(inUrl), "hello", `hello.${namespace}`, "edge"]) {
      expect({ host, page: await curl(one, `http://${host}/`) }).toEqual({
        host,
        page: expect.stringContaining(greeting) as string,
      });
    }
  });
  test("refusals, echoes and datagrams of every size go as they do inside", async () => {
    for (const host of seen.pods) {
      expect((await call<Dialled>(one, "dial", { host, port: 9 })).outcome).toBe("ECONNREFUSED");
      expect((await call<Dialled>(one, "refusedDatagram", { host, port: 9 })).outcome).toBe("ECONNREFUSED");
    }
    for (const address of seen.pods) {
      for (const bytes of [56, 20_000]) expect(await ping(one, address, bytes)).toBe(`reply ${bytes}`);
    }
    const nobody = layout.nodePodRanges.map((range) => range.replace(/0?\/\d+$/, isIpv6(range) ? "eeee" : "249"));
    const there = [...seen.services, ...nobody];
    report(
      `echo where no pod is, ${layout.family}`,
      Object.fromEntries(await Promise.all(there.map(async (address) => [address, await ping(one, address, 56)]))),
    );
    for (const address of nobody) expect(await ping(one, address, 56)).not.toContain("reply");
    const sizes = [1, 512, 1400, 8000, 32_000];
    for (const host of seen.echo) {
      const { same } = await call<{ same: boolean[] }>(one, "udp", { host, port: 7000, sizes });
      expect({ host, lost: sizes.filter((_, index) => same[index] !== true) }).toEqual({ host, lost: [] });
    }
  });
}

/** What an echo request of the laptop's root comes to. */
async function ping(lab: Lab, address: string, bytes: number): Promise<string> {
  const script = join(layout.checkoutRoot, "test/cluster/fixtures/ping.py");
  return (await lab.rootSh(`python3 ${script} ${address} ${bytes}`)).trim();
}

function triesOfIntercept(): void {
  test.each([
    ["hello", "ephemeral"],
    ["number", "sidecar"],
  ] as const)("of %s by an agent of kind %s has callers of every family, and gives them back", async (name, agent) => {
    const addresses = await words(`service/${name}`, ".spec.clusterIPs");
    const ask = (path = "/"): Promise<readonly string[]> =>
      Promise.all(addresses.map((address) => fromPod(`http://${inUrl(address)}${path}`)));
    const callers = async (): Promise<readonly string[]> =>
      (await ask("/headers")).map((text) => (JSON.parse(text) as { readonly caller: string }).caller);
    expect(await callers()).toEqual(seen.callers);
    await using process = one.spawn(fixture("laptop-server.mjs", "18600"));
    await process.says("listens on");
    await one.ok("intercept", name, "--port", "18600", "--agent", agent);
    expect(await ask()).toEqual(addresses.map(() => "hello from laptop\n"));
    const pods = await podAddresses(name);
    report(`intercepted at, ${layout.family}, ${agent}`, { addresses, pods });
    for (const address of pods) expect(await fromPod(`http://${inUrl(address)}:8000/`)).toBe("hello from laptop\n");
    for (const address of addresses) expect(await curl(one, `http://${inUrl(address)}/`)).toBe("hello from laptop\n");
    process.kill("SIGKILL");
    await process.ends();
    // the application answers, and sees its caller where the agent may redirect
    const away = await callers();
    report(`the application's callers meanwhile, ${layout.family}, ${agent}`, away);
    if (agent === "sidecar") expect(away).toEqual(seen.callers);
    await one.ok("leave", name);
    expect(await callers()).toHaveLength(addresses.length);
    for (const page of await ask()) expect(page).toContain(greeting);
  });
  test("of datagrams has callers of every family, and gives them back", async () => {
    await using process = one.spawn(fixture("laptop-datagrams.mjs", "18601"));
    await process.says("laptop listens");
    await one.ok("intercept", "echo", "--port", "18601:7000/udp");
    for (const address of seen.echo) {
      await until("the laptop's answer", async () => (await datagramFromPod(address)).startsWith("laptop"));
    }
    await one.ok("leave", "echo");
    for (const address of seen.echo) expect(await datagramFromPod(address)).toBe("ping");
  });
  test("leaves the laptop as it was, after quit", async () => {
    await one.quit();
    await until("the helper's end", () => one.pids("helper").length === 0, { limitMs: 5000 });
    expect(await one.traces()).toEqual(before);
  });
}

function triesOfSecond(): void {
  const server = layout.family === "ipv6" ? ["--server", layout.apiServerUrl6] : [];
  test("sees what it wants at other addresses, and leaves out what it does not want", async () => {
    const [pod = ""] = seen.pods.filter(isIpv6);
    const wishes = ["--vnat", "service", "--never-proxy", `${pod}/128`, "--also-proxy", "fd99:1::/64"];
    await two.ok("connect", "-n", namespace, ...server, ...wishes);
    const { stdout } = await two.sh("getent ahostsv6 hello");
    expect(stdout).toMatch(/^fd74:656c:/);
    expect(await curl(two, "http://hello/")).toContain(greeting);
    const [elsewhere = ""] = stdout.split(" ");
    expect(await curl(two, `http://[${elsewhere}]/`)).toContain(greeting);
    expect((await two.sh(`getent hosts ${elsewhere}`)).stdout).toContain(`hello.${namespace}.svc.cluster.local`);
    expect((await two.sh("ip -6 route get fd99:1::7")).stdout).toMatch(/dev tel/);
    expect((await two.sh(`ip -6 route get ${pod}`)).stdout).toContain("dev eth0");
    const status = (await two.cli(["status"])).stdout;
    report(
      `seen elsewhere, ${layout.family}`,
      status
        .split("\n")
        .filter((line) => line.includes(" as "))
        .join("; "),
    );
    expect(status).toContain(`${layout.serviceRanges.find(isIpv6)} as fd74:656c:`);
    await two.quit();
  });
  test("that has IPv6 switched off reaches what is left, or is told at once", async () => {
    const off = (value: 0 | 1): Promise<string> =>
      one.rootSh(`for name in all default; do echo ${value} > /proc/sys/net/ipv6/conf/$name/disable_ipv6; done`);
    await off(1);
    const { code, stderr } = await one.cli(["connect", "-n", namespace]);
    report(`IPv6 switched off, ${layout.family}`, stderr);
    if (layout.family === "ipv6") {
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(
          /^telepresence: error: this laptop has IPv6 switched off, and fd10:.*\n$/,
        ) as string,
      });
    } else {
      expect(code).toBe(0);
      expect(stderr).toMatch(
        /^Warning: this laptop has IPv6 switched off: fd10:.* of the cluster cannot be reached\n$/,
      );
      expect(await curl(one, "http://hello/")).toContain(greeting);
      expect((await one.sh("getent ahosts hello")).stdout).not.toContain("fd10:");
      expect(await one.ok("status")).toContain("of IPv6, which this laptop has switched off");
    }
    await one.quit();
    await off(0);
  });
  test("goes by proxies as well, without a device", async () => {
    const said = await two.ok("connect", "-n", namespace, ...server, "--proxy");
    const proxy = /socks5h?:\/\/[^\s"]+/.exec(said)?.[0].replace("socks5:", "socks5h:") ?? "";
    for (const host of ["hello", ...seen.services.map(inUrl)]) {
      expect((await two.sh(`curl -sS -m 10 -x '${proxy}' 'http://${host}/'`)).stdout).toContain(greeting);
    }
    await two.quit();
  });
}
