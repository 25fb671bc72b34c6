// A personal intercept of a service that speaks TLS: its callers go on seeing the application's own certificate, the
// requests of one person are answered by the laptop, and nothing fails while that comes and goes. Ephemeral and sidecar.
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "#testbed/exec.ts";
import { Lab, apply, fixture, kubectl, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures, type Call } from "./load.ts";
import { stage } from "./stage.ts";

const namespace = "it-tls";
const lab = new Lab({ managerNamespace: "it-tls-manager" });
const cycles = 3;
const server = readFileSync(join(import.meta.dirname, "fixtures/tls-server.mjs"), "utf8");
const folder = mkdtempSync(join(tmpdir(), "it-tls-"));
const localPort = "18860";

/** Of tls-load.mjs. */
type TlsCall = Call & { readonly isAnn: boolean; readonly wanted: string; readonly shown: string };

/** A certificate and its key in a folder, as the kubelet would show a Secret. */
async function makeCertificate(name: string): Promise<string> {
  const files = ["-keyout", join(folder, `${name}.key`), "-out", join(folder, `${name}.crt`)];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  await run("openssl", ["req", ...kind, "-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`, ...files]);
  return readFileSync(join(folder, `${name}.crt`), "utf8");
}

const web = (name: string): Parameters<typeof webApp>[0] => ({
  name,
  ports: [{ name: "https", containerPort: 8443 }],
  servicePorts: [{ name: "https", port: 443, targetPort: "https" }],
  container: {
    command: ["node", "--input-type=module", "-e", server],
    env: [
      { name: "NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "PORT", value: "8443" },
      { name: "FOLDER", value: "/etc/web-tls" },
    ],
    readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 },
    volumeMounts: [{ name: "web-tls", mountPath: "/etc/web-tls", readOnly: true }],
  },
  pod: {
    terminationGracePeriodSeconds: 15,
    securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
    volumes: [{ name: "web-tls", secret: { secretName: `${name}-certificate` } }],
  },
});

stage([lab], namespace);
let laptopFolder = "";
beforeAll(async () => {
  await makeCertificate("laptop");
  laptopFolder = join(folder, "laptop");
  await run("sh", [
    "-c",
    `mkdir ${laptopFolder} && cp ${folder}/laptop.crt ${laptopFolder}/tls.crt && cp ${folder}/laptop.key ${laptopFolder}/tls.key && chmod -R a+rX ${folder}`,
  ]);
  await lab.ok("connect", "-n", namespace);
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await lab.cli(["uninstall", "--everything"]);
});

describe.each(["ephemeral", "sidecar"] as const)("by an agent that comes as %s", (agent) => {
  const name = `web-${agent}`;

  test(`${cycles} cycles of a filter on TLS lose no request`, { timeout: 300_000 }, async () => {
    const certificate = await makeCertificate(name);
    const files = [`--cert=${join(folder, `${name}.crt`)}`, `--key=${join(folder, `${name}.key`)}`];
    await kubectl("create", "secret", "tls", `${name}-certificate`, "-n", namespace, ...files);
    await apply(namespace, ...webApp(web(name)));
    await rolledOut(namespace, `deployment/${name}`);
    await using process = lab.spawn(fixture("tls-server.mjs", localPort, "laptop", laptopFolder));
    await process.says("listens on");
    const target = `https://${name}.${namespace}:443/`;
    const load = await Load.start({ namespace, target, perSecond: 20, name: `load-${agent}`, program: "tls-load.mjs" });
    const startMs = Date.now();
    const calls = async (sinceMs: number): Promise<readonly TlsCall[]> =>
      (await load.calls(sinceMs)) as readonly TlsCall[];
    const settled = (what: string, isRight: (call: TlsCall) => boolean): Promise<true> => {
      const sinceMs = Date.now();
      return until(what, async () => {
        const last = (await calls(sinceMs)).slice(-40);
        return last.length === 40 && last.every(isRight);
      });
    };
    for (let cycle = 1; cycle <= cycles; cycle += 1) {
      const said = await lab.cli([
        "intercept",
        name,
        "--port",
        localPort,
        "--http-header",
        "x-user=ann",
        "--agent",
        agent,
      ]);
      expect(said).toMatchObject({ code: 0 });
      // Connections that are older than an ephemeral agent's redirect stay with the application.
      await settled("the laptop's answers", ({ isAnn, who, kept }) => kept || (who === "laptop") === isAnn);
      await lab.ok("leave", name);
      await settled("the application's answers", ({ who }) => who.startsWith(name));
    }
    const all = await calls(startMs);
    const byLaptop = all.filter(({ who }) => who === "laptop");
    report(`TLS through attach and leave (${agent}), ${cycles} cycles`, {
      calls: all.length,
      onKept: all.filter(({ kept }) => kept).length,
      failed: failures(all).length,
      ...countByWho(all),
      laptopOnKept: byLaptop.filter(({ kept }) => kept).length,
    });
    expect(failures(all, startMs)).toEqual([]);
    expect(byLaptop.filter(({ isAnn }) => !isAnn)).toEqual([]);
    expect(new Set(all.map(({ wanted }) => wanted))).toEqual(new Set([`${name}.${namespace} http/1.1`]));
    // Of a session that was resumed, a caller in Node sees none again.
    expect(new Set(all.map(({ shown }) => shown).filter(Boolean))).toEqual(
      new Set([new X509Certificate(certificate).fingerprint256]),
    );
  });
});

test("a filter on a port that speaks TLS in a pod without a certificate is refused before anything is touched", async () => {
  const plain = {
    ...web("bare"),
    pod: {},
    container: { ...web("bare").container, volumeMounts: [], command: ["sleep", "600"] },
  };
  await apply(namespace, ...webApp({ ...plain, container: { ...plain.container, readinessProbe: undefined } }));
  const refused = await lab.cli(["intercept", "bare", "--port", localPort, "--http-header", "x-user=ann"]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(
    /port 8443 of deployment bare speaks TLS by its service's word, which a filter cannot read/,
  );
  const named = await lab.cli([
    "intercept",
    "web-sidecar",
    "--port",
    localPort,
    "--http-method",
    "GET",
    "--tls-cert",
    "other",
  ]);
  expect(named.stderr).toMatch(
    /mount no volume or Secret other .*they mount web-tls \(Secret web-sidecar-certificate\)/s,
  );
});
