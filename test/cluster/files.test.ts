// What the laptop's process is given of the pod: the whole environment, and the volumes as files without FUSE, kept in
// step and gone in the end, whatever ends it. Also of a container in which there is no shell, no cat and no tar.
import { randomBytes } from "node:crypto";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { imageReference } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, kubectl, report, rolledOut, toolsImage, until, webApp, type Manifest } from "./lab.ts";
import { watchSecret } from "./secret-files.ts";
import { stage } from "./stage.ts";

const namespace = "it-files";
const lab = new Lab({ managerNamespace: "it-files-manager", agent: "ephemeral" });
stage([lab], namespace);
const { secretFiles, nothingLeft } = watchSecret(lab, () => hush);

/** Looked for in all files of the laptop in the end; a new one each time, because this file is one too. */
const hush = `hush-${randomBytes(8).toString("hex")}`;

const objects: readonly Manifest[] = [
  {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "settings" },
    data: { MODE: "multi\nline $x 'q' \"d\"", "a.conf": "one" },
  },
  {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "keys" },
    stringData: { KEY: `${hush}-ü`, "key.pem": `${hush}\n` },
  },
];
const env = [
  { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
  { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
  { name: "CPU", valueFrom: { resourceFieldRef: { resource: "requests.cpu", divisor: "1m" } } },
  { name: "BUILT", value: "$(POD_NAME)/$(PREFIX_KEY) $$(POD_NAME) $(NOBODY)" },
  { name: "FROM_SECRET", valueFrom: { secretKeyRef: { name: "keys", key: "KEY" } } },
];
const envFrom = [{ configMapRef: { name: "settings" } }, { prefix: "PREFIX_", secretRef: { name: "keys" } }];
const volumeMounts = [
  { name: "settings", mountPath: "/etc/app" },
  { name: "settings", mountPath: "/etc/one.conf", subPath: "a.conf" },
  { name: "keys", mountPath: "/etc/app/keys" },
  { name: "info", mountPath: "/etc/info" },
  { name: "all", mountPath: "/var/run/all" },
  { name: "data", mountPath: "/data" },
];
const volumes = [
  { name: "settings", configMap: { name: "settings" } },
  { name: "keys", secret: { secretName: "keys", defaultMode: 0o440 } },
  { name: "info", downwardAPI: { items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }] } },
  {
    name: "all",
    projected: {
      sources: [
        { serviceAccountToken: { path: "vault-token", audience: "vault", expirationSeconds: 600 } },
        { secret: { name: "keys", items: [{ key: "key.pem", path: "tls/key.pem" }] } },
      ],
    },
  },
  { name: "data", emptyDir: {} },
];
const fill =
  "mkdir -p /data/sub && head -c 3000000 /dev/zero > /data/sub/big && ln -s sub/big /data/link && ln -s /etc /data/out";
const pod = {
  volumes,
  initContainers: [
    {
      name: "fill",
      image: toolsImage,
      command: ["sh", "-c", fill],
      volumeMounts: [{ name: "data", mountPath: "/data" }],
    },
  ],
};
/** Our own image: Node and nothing else. */
const serve = "require('http').createServer((q,r)=>r.end('Hello from the cluster')).listen(8000)";
const noShell = { image: imageReference, command: ["/usr/bin/node", "-e", serve] };
const sidecar = {
  name: "beside",
  image: toolsImage,
  command: ["sleep", "1000000"],
  env: [{ name: "BESIDE", value: "yes" }],
};

beforeAll(async () => {
  await apply(namespace, ...objects);
  const full = webApp({ name: "full", container: { env, envFrom, volumeMounts }, pod });
  const bare = webApp({ name: "bare", container: { ...noShell, env, envFrom, volumeMounts }, pod });
  await apply(namespace, ...full, ...bare);
  await apply(namespace, ...withSidecar(webApp({ name: "two" })));
  await rolledOut(namespace, "deployment/full", "deployment/bare", "deployment/two");
});
afterEach(async () => await lab.quit());

function withSidecar([workload, ...others]: readonly Manifest[]): readonly Manifest[] {
  const changed = JSON.parse(JSON.stringify(workload)) as { spec: { template: { spec: { containers: unknown[] } } } };
  changed.spec.template.spec.containers.push(sidecar);
  return [changed, ...others];
}

const dump = ["python3", "-c", "import json, os; print(json.dumps(dict(os.environ)))"];

async function environmentOf(
  name: string,
  ...flags: readonly string[]
): Promise<{ seen: Record<string, string>; stderr: string }> {
  const { stdout, stderr, code } = await lab.cli([
    "intercept",
    name,
    "-n",
    namespace,
    "--port",
    "18900",
    ...flags,
    "--",
    ...dump,
  ]);
  expect({ code, stderr: stderr.replaceAll(/^Warning: .*\n/gm, "") }).toEqual({ code: 0, stderr: "" });
  return { seen: JSON.parse(stdout.slice(stdout.indexOf("\n{") + 1)) as Record<string, string>, stderr };
}

/** Everything that the container itself has, less what describes its own system. */
async function truth(name: string, container: string): Promise<Record<string, string>> {
  const code = "import json; print(json.dumps(open('/proc/self/environ','rb').read().decode()))";
  const text = await kubectl(
    "exec",
    "-n",
    namespace,
    `deployment/${name}`,
    "-c",
    container,
    "--",
    "python3",
    "-c",
    code,
  );
  const pairs = (JSON.parse(text) as string).split("\0").filter((line) => line.includes("="));
  const own = ["HOME", "PATH", "HOSTNAME", "PWD"];
  return Object.fromEntries(
    pairs
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)])
      .filter(([key]) => !own.includes(key ?? "")),
  ) as Record<string, string>;
}

describe("the environment", () => {
  test("is the container's own, to the last letter", async () => {
    const [expected, { seen, stderr }] = [await truth("full", "full"), await environmentOf("full")];
    expect(stderr).toBe("");
    expect(seen).toMatchObject(expected);
    expect(expected).toMatchObject({
      MODE: "multi\nline $x 'q' \"d\"",
      PREFIX_KEY: `${hush}-ü`,
      CPU: "10",
      NODE: "node1",
      BUILT: `${expected["POD_NAME"]}/${hush}-ü $(POD_NAME) $(NOBODY)`,
    });
    expect(Object.keys(expected).filter((key) => /^BARE_SERVICE_|^KUBERNETES_/.test(key)).length).toBeGreaterThan(3);
    report("variables of the container, all of them on the laptop", Object.keys(expected).length);
  });
  test("is read by sh from the file as it was", async () => {
    const expected = await truth("full", "full");
    const file = ["--env-file", "it-files.env", "--env-syntax", "sh:export", "--env-exclude", "KUBERNETES_*"];
    const warned = await lab.cli(["intercept", "full", "-n", namespace, "--port", "18900", ...file]);
    expect(warned.stderr).toContain("lacks PREFIX_key.pem, a.conf, which --env-syntax sh:export cannot express");
    const read = await lab.sh(
      `stat -c %a it-files.env; . ./it-files.env; ${dump.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ")}; rm it-files.env`,
    );
    const [mode, json = ""] = read.stdout.split("\n");
    expect(mode).toBe("600");
    const seen = JSON.parse(json) as Record<string, string>;
    for (const [key, value] of Object.entries(expected)) {
      if (/^\w+$/.test(key) && !key.startsWith("KUBERNETES_"))
        expect({ key, value: seen[key] }).toEqual({ key, value });
    }
    expect(Object.keys(seen).filter((key) => key.startsWith("KUBERNETES_"))).toEqual([]);
  });
  test("of a container without cat is what its specification says, and that is told", async () => {
    const [{ seen, stderr }, full] = [await environmentOf("bare"), await truth("full", "full")];
    expect(stderr).toMatch(
      /^Warning: the container's own environment could not be read: the container has no `cat`; it is what/m,
    );
    for (const key of ["MODE", "PREFIX_KEY", "CPU", "NODE", "FROM_SECRET", "KUBERNETES_SERVICE_HOST"]) {
      expect({ key, value: seen[key] }).toEqual({ key, value: full[key] });
    }
    expect(seen["BUILT"]).toBe(`${seen["POD_NAME"]}/${hush}-ü $(POD_NAME) $(NOBODY)`);
  });
  test("may be another container's", async () => {
    expect((await environmentOf("two", "--container", "beside")).seen).toMatchObject({
      BESIDE: "yes",
      TELEPRESENCE_CONTAINER: "beside",
    });
    expect((await environmentOf("two")).seen).not.toHaveProperty("BESIDE");
  });
});

/** Starts an intercept and gives where its volumes are. */
async function intercept(
  name: string,
  ...flags: readonly string[]
): Promise<{ root: string; stderr: string; tookMs: number }> {
  const startMs = performance.now();
  const { stdout, stderr, code } = await lab.cli(["intercept", name, "-n", namespace, "--port", "18900", ...flags]);
  const tookMs = Math.round(performance.now() - startMs);
  expect({ code, stderr: stderr.replaceAll(/^Warning: .*\n/gm, "") }).toEqual({ code: 0, stderr: "" });
  return { root: /Volume Mount Point: (.*)/.exec(stdout)?.[1] ?? "", stderr, tookMs };
}

const read = async (path: string): Promise<string> => (await lab.sh(`cat '${path}'`)).stdout;

/** `mode path` of all files that are not a kubelet-like layout's own, links followed. */
async function listing(root: string): Promise<readonly string[]> {
  const { stdout } = await lab.sh(
    `cd '${root}' && find -L . -type f -not -path '*/..*/*' -printf '%m %P\\n' | sort -k2`,
  );
  return stdout.trim().split("\n");
}

const token = "/var/run/secrets/kubernetes.io/serviceaccount";
const kept = [
  "600 etc/app/MODE",
  "600 etc/app/a.conf",
  "600 etc/app/keys/KEY",
  "600 etc/app/keys/key.pem",
  "600 etc/info/labels",
  "600 etc/one.conf",
  "600 var/run/all/tls/key.pem",
  "600 var/run/all/vault-token",
  `600 ${token.slice(1)}/ca.crt`,
  `600 ${token.slice(1)}/namespace`,
  `600 ${token.slice(1)}/token`,
];

describe("volumes", () => {
  for (const name of ["full", "bare"]) {
    test(`of ${name} are files of the user alone, kept in step`, async () => {
      const { root, tookMs } = await intercept(name);
      expect(await listing(root)).toEqual(kept);
      expect(await read(`${root}/etc/app/keys/key.pem`)).toBe(`${hush}\n`);
      expect(await read(`${root}/etc/info/labels`)).toContain(`app="${name}"`);
      // the token is worth something: the API knows whose it is
      const review = {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token: await read(`${root}${token}/token`) },
      };
      const { stdout } = await lab.sh(
        `echo '${JSON.stringify(review)}' | kubectl create -o jsonpath={.status.user.username} -f -`,
      );
      expect(stdout).toBe(`system:serviceaccount:${namespace}:default`);
      const startMs = performance.now();
      await kubectl(
        "patch",
        "configmap",
        "settings",
        "-n",
        namespace,
        "-p",
        JSON.stringify({ data: { "a.conf": `two ${name}` } }),
      );
      await until("the change on the laptop", async () => (await read(`${root}/etc/app/a.conf`)) === `two ${name}`);
      report(`${name}: intercept with volumes, ms; a changed ConfigMap until it is on the laptop, ms`, [
        tookMs,
        Math.round(performance.now() - startMs),
      ]);
      const before = await secretFiles();
      await lab.ok("leave", name);
      await nothingLeft(before);
    });
    test(`of ${name} that only the container has are copied once, on request, up to a limit`, async () => {
      const { root, stderr } = await intercept(name, "--copy-volume", "data");
      const { stdout } = await lab.sh(`cd '${root}/data' && find . -mindepth 1 -printf '%P %y %m %l\\n' | sort`);
      expect(stdout).toBe("link l 777 sub/big\nsub d 700 \nsub/big f 600 \n");
      expect((await lab.sh(`wc -c < '${root}/data/sub/big'`)).stdout).toBe("3000000\n");
      expect(stderr).toContain("1 entries of volume data were not copied");
      await lab.quit();
      const tooMuch = await lab.cli([
        "intercept",
        name,
        "-n",
        namespace,
        "--port",
        "18900",
        "--copy-volume",
        "/data",
        "--copy-limit",
        "1Mi",
      ]);
      expect(tooMuch.code).toBe(1);
      expect(tooMuch.stderr).toMatch(
        /error: \/data is larger than 1 MiB, the limit of a copy; raise it with --copy-limit/,
      );
      expect(await lab.ok("list", "--intercepts", "-n", namespace)).not.toContain("ACTIVE");
      expect(await secretFiles()).toEqual([]);
    });
  }
  test("stay away with --mount=false, and go where --mount says", async () => {
    expect((await intercept("full", "--mount=false")).root).toBe("");
    await lab.ok("leave", "full");
    const { root } = await intercept("full", "--mount", "it-files-here");
    expect(root).toMatch(/\/it-files-here$/);
    expect((await listing(root)).slice(1)).toEqual(kept);
    await lab.ok("leave", "full");
    expect((await lab.sh(`ls -d '${root}'`)).stdout).toBe("");
  });
});

describe("whatever ends it", () => {
  const waiting = [
    "sh",
    "-c",
    'cat "$TELEPRESENCE_ROOT/etc/app/keys/key.pem"; echo "$TELEPRESENCE_MOUNTS"; exec sleep 1000',
  ];
  const running = async (): Promise<ReturnType<Lab["start"]>> => {
    const started = lab.start(["intercept", "full", "-n", namespace, "--port", "18900", "--", ...waiting]);
    await started.says(hush);
    await started.says("/etc/app/keys");
    return started;
  };
  test("the end of the command leaves no secret", async () => {
    await using started = await running();
    const before = await secretFiles();
    started.kill("SIGTERM");
    await started.ends();
    await nothingLeft(before);
  });
  test("quit leaves no secret", async () => {
    await intercept("full");
    const before = await secretFiles();
    await lab.quit();
    await nothingLeft(before);
  });
  test("kill -9 of the command leaves no secret", async () => {
    await using started = await running();
    const before = await secretFiles();
    for (const pid of lab.pids("cli")) process.kill(pid, "SIGKILL");
    await started.ends();
    await nothingLeft(before);
  });
  test("kill -9 of the daemon leaves no secret", async () => {
    await using started = await running();
    const before = await secretFiles();
    for (const pid of lab.pids("daemon")) process.kill(pid, "SIGKILL");
    await started.ends();
    await nothingLeft(before);
  });
});

describe("a user without the rights", () => {
  const small = new Lab({ managerNamespace: "it-files-manager", clusterUser: "small" });
  test("is told the verbs, and intercepts all the same", async () => {
    // with an agent that somebody else has put there
    await lab.ok("intercept", "full", "-n", namespace, "--port", "18900", "--mount=false");
    await lab.quit();

    await cluster.grantSmall(namespace);
    await cluster.grantSmall("it-files-manager");
    const { stdout, stderr, code } = await small.cli([
      "intercept",
      "full",
      "-n",
      namespace,
      "--port",
      "18900",
      "--agent",
      "auto",
      "--env-json",
      "/tmp/it-files.json",
    ]);
    report("small, warnings", stderr);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("ACTIVE") as string });
    expect(stderr).toMatch(/environment could not be read: user "small" may not .* pods\/exec in namespace it-files/);
    expect(stderr).toMatch(
      /lacks what comes from ConfigMap settings: user "small" may not get configmaps.*Secret keys: user "small" may not get secrets/,
    );
    expect(stderr).toMatch(
      /the files of \/etc\/app.* could not be copied: user "small" may not get configmaps in namespace it-files/,
    );
    expect(stderr).toMatch(
      /the files of \/etc\/app\/keys.* could not be copied: user "small" may not get secrets in namespace it-files/,
    );
    expect(stderr).toMatch(/serviceaccounts\/token/);
    await lab.sh("rm /tmp/it-files.json");
    await small.quit();
    expect(await field(namespace, "deployment/full", ".metadata.generation")).toBe("1");
  });
});
