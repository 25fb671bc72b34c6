// Names on the real cluster, asked as programs ask: through the host's own resolver's address, over UDP and TCP. What
// the laptop's public resolver was asked is read from its own log. Traps 2 to 5, 7.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import {
  clusterDnsAddress,
  laptopAddresses,
  nodeAddress,
  publicWebAddress,
  routerNodeAddress,
} from "#testbed/layout.ts";
import { call, figure } from "./call.ts";
import type { Answer, Question } from "./caller.ts";
import { apply, field, freshNamespaces, Lab, removeNamespaces, rolledOut, service, until } from "./lab.ts";
import { webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "names";
const lab = new Lab({});
const { address: laptopAddress, gateway: resolver } = laptopAddresses(1);
const queriesUrl = `http://${publicWebAddress}/queries`;

const ask = async (name: string, type = "A", more: Partial<Question> = {}): Promise<Answer> =>
  await call<Answer>(lab, "ask", { server: resolver, name, type, ...more });

/** What the public resolver was asked, and by whom: the laptop, or the cluster on its behalf. */
async function publicQueries(): Promise<readonly { readonly name: string; readonly from: string }[]> {
  return JSON.parse((await lab.sh(`curl -sS -m 10 ${queriesUrl}`)).stdout) as { name: string; from: string }[];
}

stage([lab], namespace);
beforeAll(async () => {
  await cluster.deploySamples(namespace, ["hello"]);
  await apply(namespace, ...webApp({ name: "web", kind: "StatefulSet", replicas: 2, headless: true }));
  await rolledOut(namespace, "statefulset/web");
  await lab.ok("connect", "-n", namespace);
});
beforeEach(async () => {
  await lab.sh(`curl -sS -m 10 -X DELETE ${queriesUrl}`);
});
afterAll(async () => {
  await lab.ok("uninstall", "--everything");
});

describe("a name of the cluster", () => {
  test("resolves over UDP and over TCP, with a short life", async () => {
    const address = await field(namespace, "service/hello", ".spec.clusterIP");
    for (const tcp of [false, true]) {
      for (const name of ["hello", "hello.names", "hello.names.svc", "hello.names.svc.cluster.local"]) {
        const answer = await ask(name, "A", { tcp });
        expect({ name, tcp, ...answer }).toMatchObject({ rcode: "NOERROR", answers: [address] });
        expect(answer.ttl).toBeLessThanOrEqual(5);
      }
    }
    figure("lookup of a service", (await ask("hello.names")).ms);
  });
  test("is all pods of a headless service, and each pod of a StatefulSet", async () => {
    const { answers } = await ask("web.names");
    expect(answers).toHaveLength(2);
    const pods = await Promise.all(["web-0.web", "web-1.web.names"].map((name) => ask(name)));
    expect(pods.flatMap((pod) => pod.answers).sort()).toEqual([...answers].sort());
  });
  test("has SRV records, and an address has its name", async () => {
    const srv = await ask("_http._tcp.hello.names.svc.cluster.local", "SRV");
    expect(srv.answers.join()).toContain("hello.names.svc.cluster.local");
    const reverse = `${clusterDnsAddress.split(".").toReversed().join(".")}.in-addr.arpa`;
    expect((await ask(reverse, "PTR")).answers).toEqual(["kube-dns.kube-system.svc.cluster.local"]);
  });
  test("that is missing does not exist, and one without such a record has no data (trap 4)", async () => {
    for (const name of ["nothing.names", "nothing.names.svc.cluster.local", "web-9.web.names"]) {
      expect({ name, ...(await ask(name)) }).toMatchObject({ rcode: "NXDOMAIN", answers: [] });
    }
    expect(await ask("hello.names", "AAAA")).toMatchObject({ rcode: "NOERROR", answers: [] });
    expect(await ask("hello", "AAAA")).toMatchObject({ rcode: "NOERROR", answers: [] });
    // what resolvers make of it: an answer, without waiting for the other family
    expect((await lab.sh("getent ahosts hello.names")).stdout).toMatch(/^10\.96\./);
  });
  // CoreDNS itself keeps what it was asked before for 5 s; what we and the laptop keep has to end within that.
  test("resolves to its new address within 5 s after the service was made anew (trap 5)", async () => {
    const make = async (clusterIP: string): Promise<void> =>
      apply(namespace, service("moving", [{ port: 80, targetPort: 8000 }], { clusterIP }, "hello"));
    const resolves = async (answer: string): Promise<number> => {
      const question = { server: resolver, name: "moving.names", answer, limitMs: 15_000 };
      return (await call<{ readonly atMs: number }>(lab, "askUntil", question)).atMs;
    };
    await make("10.96.7.1");
    await resolves("10.96.7.1");
    await cluster.kubectl(["delete", "service", "moving", "-n", namespace]);
    const madeMs = Date.now();
    await make("10.96.7.2");
    const ms = (await resolves("10.96.7.2")) - madeMs;
    figure("a service made anew resolves to its new address after", ms);
    expect(ms).toBeLessThan(5000);
    expect((await lab.sh("getent ahostsv4 moving.names")).stdout).toMatch(/^10\.96\.7\.2 /);
  });
  test("is found by 1,000 lookups at once, as is what does not exist (trap 7)", async () => {
    const names = Array.from({ length: 1000 }, (_, index) =>
      index % 2 === 0 ? "hello.names" : `nothing-${index}.names`,
    );
    const result = await call<{ rcodes: object; unanswered: number; ms: number }>(lab, "askMany", {
      server: resolver,
      names,
    });
    figure("1,000 lookups at once", result.ms);
    expect(result).toMatchObject({ rcodes: { NOERROR: 500, NXDOMAIN: 500 }, unanswered: 0 });
  });
  test("of a namespace made after connect resolves", async () => {
    await freshNamespaces("names-later");
    try {
      await apply("names-later", service("late", [{ port: 80 }]));
      const address = await field("names-later", "service/late", ".spec.clusterIP");
      await until("late.names-later", async () => (await ask("late.names-later")).answers[0] === address);
    } finally {
      await removeNamespaces("names-later");
    }
  });
  test("never reaches the public resolver, whether it exists or not", async () => {
    for (const name of ["hello", "hello.names", "nothing.names", "x.svc.cluster.local"]) await ask(name);
    await lab.sh("curl -sS -m 10 http://hello.names/");
    const asked = (await publicQueries()).map(({ name }) => name);
    expect(asked.filter((name) => /names|hello|cluster/.test(name))).toEqual([]);
  });
});

// As kubeadm sets CoreDNS up: what it was asked it keeps for 30 s. And with records that Kubernetes itself has none of.
describe("a resolver with a long memory and records of its own", () => {
  let before = "";
  const own = (type: string, name: string, data: string): string =>
    `template IN ${type} cluster.local {
        match ^${name}[.]names[.]svc[.]cluster[.]local[.]$
        answer "{{ .Name }} 30 IN ${type} ${data}"
        fallthrough
    }`;
  const useCorefile = async (corefile: string): Promise<void> => {
    await cluster.kubectl(["apply", "-f", "-"], {
      input: JSON.stringify({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "coredns", namespace: "kube-system" },
        data: { Corefile: corefile },
      }),
    });
    await cluster.kubectl(["rollout", "restart", "deployment/coredns", "-n", "kube-system"]);
    await rolledOut("kube-system", "deployment/coredns");
  };
  beforeAll(async () => {
    before = await field("kube-system", "configmap/coredns", ".data.Corefile");
    const records = [
      own("TXT", "text", '\\"one\\" \\"two\\"'),
      own("MX", "mail", "10 hello.names.svc.cluster.local."),
      own("CNAME", "other", "hello.names.svc.cluster.local."),
      own("A", "hello", "192.0.2.1"),
    ];
    await useCorefile(
      before
        .replace("pods insecure", "pods insecure\n       ttl 30")
        .replace("errors", `errors\n    ${records.join("\n    ")}`),
    );
  });
  afterAll(async () => {
    await useCorefile(before);
  });

  test("answers with records of every type, over UDP and TCP", async () => {
    const address = await field(namespace, "service/hello", ".spec.clusterIP");
    const podAddress = await field(namespace, "pod/web-0", ".status.podIP");
    const reverse = (text: string): string => `${text.split(".").toReversed().join(".")}.in-addr.arpa`;
    for (const tcp of [false, true]) {
      const answers = async (name: string, type: string): Promise<string> => {
        const { rcode, answers: all } = await ask(name, type, { tcp });
        return [rcode, ...all].join(" ");
      };
      await until("the text", async () => (await answers("text.names", "TXT")).startsWith("NOERROR"));
      expect(await answers("mail.names", "MX")).toContain('"exchange":"hello.names.svc.cluster.local"');
      expect(await answers("other.names", "CNAME")).toBe("NOERROR hello.names.svc.cluster.local");
      expect(await answers("_http._tcp.hello.names", "SRV")).toContain('"port":80');
      expect(await answers(reverse(address), "PTR")).toBe("NOERROR hello.names.svc.cluster.local");
      expect(await answers(reverse(podAddress), "PTR")).toBe("NOERROR web-0.web.names.svc.cluster.local");
      expect(await answers("hello.names", "TXT")).toBe("NOERROR");
      expect(await answers("nothing.names", "TXT")).toBe("NXDOMAIN");
    }
  });
  // Story: asked for before it was made, a service was not found for half a minute; made anew, at its old address.
  test("a service of the connection's namespace is found at once all the same (trap 5)", async () => {
    const resolves = async (clusterIP: string): Promise<number> => {
      await apply(namespace, service("fresh", [{ port: 80, targetPort: 8000 }], { clusterIP }, "hello"));
      const startMs = Date.now();
      const question = { server: resolver, name: "fresh.names", answer: clusterIP, limitMs: 15_000 };
      return (await call<{ readonly atMs: number }>(lab, "askUntil", question)).atMs - startMs;
    };
    const address = await field(namespace, "service/hello", ".spec.clusterIP");
    expect((await ask("hello.names")).answers).toEqual([address]); // not what the resolver would say
    expect(await ask("fresh.names")).toMatchObject({ rcode: "NXDOMAIN" });
    figure("a service asked for before it was made resolves after", await resolves("10.96.7.3"));
    await cluster.kubectl(["delete", "service", "fresh", "-n", namespace]);
    const ms = await resolves("10.96.7.4");
    figure("a service made anew resolves to its new address after", ms);
    expect(ms).toBeLessThan(5000);
  });
});

// Story: on another Wi-Fi the old network's nameserver was hooked still, and the new one's answers knew no cluster.
test("a nameserver that the laptop gets while connected is asked, and leads to the cluster too", async () => {
  const other = routerNodeAddress;
  const askOther = async (name: string): Promise<string> => {
    const { rcode, answers } = await ask(name, "A", { server: other });
    return [rcode, ...answers].join(" ");
  };
  expect(await askOther("hello.names")).toBe("NXDOMAIN");
  await lab.rootSh(`cp /etc/resolv.conf /run/resolv.keep; echo nameserver ${other} > /etc/resolv.conf`);
  try {
    const address = await field(namespace, "service/hello", ".spec.clusterIP");
    await until("the cluster's answer", async () => (await askOther("hello.names")) === `NOERROR ${address}`);
    expect(await askOther("example.com")).toBe(`NOERROR ${publicWebAddress}`);
    expect((await lab.sh("getent ahostsv4 hello")).stdout).toContain(address);
    expect(await lab.ok("status")).toContain(other);
  } finally {
    await lab.rootSh("cp /run/resolv.keep /etc/resolv.conf; rm /run/resolv.keep");
  }
  await until("the first nameserver again", async () => (await ask("hello.names")).rcode === "NOERROR");
  expect(await askOther("hello.names")).toBe("NXDOMAIN");
});

describe("a name of the host's", () => {
  test("is answered by the host's resolver, as before", async () => {
    expect(await ask("example.com")).toMatchObject({ rcode: "NOERROR", answers: [publicWebAddress], ttl: 30 });
    expect(await ask("example.com", "A", { tcp: true })).toMatchObject({
      rcode: "NOERROR",
      answers: [publicWebAddress],
    });
    expect(await ask("example.com", "AAAA")).toMatchObject({ rcode: "NOERROR", answers: [] });
    expect(await ask("nothing.example.com")).toMatchObject({ rcode: "NXDOMAIN" });
    for (const { from } of await publicQueries()) expect(from).toBe(laptopAddress);
  });
  test("does not leak into the cluster: wpad, discovery, other domains (trap 3)", async () => {
    const names = [
      "wpad",
      "wpad.example.com",
      "lb._dns-sd._udp.example.com",
      "printer.local",
      "a.corp.example",
      "x.example.org",
    ];
    for (const name of names) await ask(name);
    await ask("10.113.0.203.in-addr.arpa", "PTR");
    const leaked = (await publicQueries()).filter(({ from }) => from === nodeAddress);
    expect(leaked).toEqual([]);
    expect(await ask("wpad.names.svc.cluster.local")).toMatchObject({ rcode: "NXDOMAIN" });
  });
  test("that has one label only is asked of the cluster first, then of the host", async () => {
    expect(await ask("no-such-host")).toMatchObject({ rcode: "NXDOMAIN" });
    expect((await publicQueries()).some(({ name, from }) => name === "no-such-host" && from === laptopAddress)).toBe(
      true,
    );
  });
});
