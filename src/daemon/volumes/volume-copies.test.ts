// Copies of a container's volumes, over a fake of the API and with the real tar of this machine for the container's.
// Traps of the original: mounts that needed FUSE, stale ones, all of /var/run/secrets hidden, files left behind.
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { Pod, Volume, VolumeMount } from "#kube/objects.ts";
import { FakePodApi } from "./pod-api.fake.ts";
import { copyVolumes, type CopiedVolumes, type VolumeWish } from "./volume-copies.ts";

const work = mkdtempSync(join(tmpdir(), "copies-"));
afterAll(() => rmSync(work, { recursive: true }));
const never = new AbortController().signal;
const base64 = (text: string): string => Buffer.from(text).toString("base64");

let api: FakePodApi;
let runtime: string;
/** The container's file system, as a folder of this machine. */
let system: string;
let opened: CopiedVolumes[] = [];
beforeEach(async () => {
  api = await FakePodApi.open();
  runtime = mkdtempSync(join(work, "runtime-"));
  system = mkdtempSync(join(work, "system-"));
});
afterEach(async () => {
  for (const copies of opened) await copies[Symbol.asyncDispose]();
  opened = [];
  await api[Symbol.asyncDispose]();
});

const volumes: readonly Volume[] = [
  { name: "settings", configMap: { name: "settings", defaultMode: 0o644 } },
  { name: "keys", secret: { secretName: "keys" } },
  { name: "info", downwardAPI: { items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }] } },
  {
    name: "kube-api-access-x",
    projected: {
      sources: [
        { serviceAccountToken: { path: "token", expirationSeconds: 3607 } },
        { configMap: { name: "settings", items: [{ key: "a.conf", path: "ca.crt" }] } },
        { downwardAPI: { items: [{ path: "namespace", fieldRef: { fieldPath: "metadata.namespace" } }] } },
      ],
    },
  },
  { name: "data", emptyDir: {} },
];
const everything: readonly VolumeMount[] = [
  { name: "settings", mountPath: "/etc/app" },
  { name: "settings", mountPath: "/etc/one.conf", subPath: "a.conf" },
  { name: "keys", mountPath: "/etc/app/keys" },
  { name: "info", mountPath: "/etc/info" },
  { name: "kube-api-access-x", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" },
  { name: "data", mountPath: "/data" },
];

function putPod(name: string, mounts = everything, labels: Readonly<Record<string, string>> = { app: "web" }): void {
  const pod: Pod = {
    metadata: { name, uid: `uid-${name}`, labels },
    spec: { containers: [{ name: "app", volumeMounts: mounts }], volumes },
  };
  api.put("pods", pod);
}

function putObjects(version: string): void {
  api.put("configmaps", {
    metadata: { name: "settings", uid: "c" },
    data: { "a.conf": `a${version}`, "b.conf": version },
  } as never);
  api.put("secrets", { metadata: { name: "keys", uid: "s" }, data: { key: base64(`hush ${version}`) } } as never);
}

interface Given extends Partial<VolumeWish> {
  readonly clock?: Clock;
  readonly pod?: () => { name: string; agent?: string } | undefined;
  readonly progress?: (text: string) => void;
  readonly signal?: AbortSignal;
}

async function copy(given: Given = {}): Promise<CopiedVolumes | undefined> {
  const {
    clock,
    pod = () => ({ name: "web-1", agent: "traffic-agent" }),
    progress = () => undefined,
    signal = never,
    ...wish
  } = given;
  const copies = await copyVolumes(
    { kube: api.client(clock), runtime, log: silentLogger },
    {
      target: { interceptName: "web", namespace: "shop", containerName: "app", pod },
      wish: { copy: [], limitBytes: 1e6, ...wish },
      progress,
    },
    signal,
  );
  if (copies !== undefined) opened.push(copies);
  return copies;
}

/** Files as their readers see them: `path mode text`. */
function files(root: string, path = ""): readonly string[] {
  return readdirSync(join(root, path))
    .filter((name) => !name.startsWith("..") && existsSync(join(root, path, name)))
    .toSorted()
    .flatMap((name) => {
      const inner = join(path, name);
      const stat = statSync(join(root, inner));
      if (stat.isDirectory()) return files(root, inner);
      return [`${inner} ${(stat.mode & 0o777).toString(8)} ${readFileSync(join(root, inner), "utf8")}`];
    });
}

async function until(text: () => string, expected: string): Promise<void> {
  while (text() !== expected) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** The container's own tar, in the folder that stands for its system. */
const ownTar = (container: string, command: readonly string[]): readonly string[] | undefined => {
  if (container !== "app" || command[0] !== "tar") return undefined;
  return command.map((word, index) => (command[index - 1] === "-C" ? join(system, word) : word));
};

describe("volumes of Kubernetes' objects", () => {
  test("are files of the user alone, nested mounts and parts of volumes too", async () => {
    putPod("web-1");
    putObjects("1");
    const copies = await copy();
    expect(copies?.warnings).toEqual([]);
    expect(copies?.mounts.toSorted()).toEqual(
      everything
        .map(({ mountPath }) => mountPath)
        .filter((path) => path !== "/data")
        .toSorted(),
    );
    expect(files(copies?.root ?? "")).toEqual([
      "etc/app/a.conf 600 a1",
      "etc/app/b.conf 600 1",
      "etc/app/keys/key 600 hush 1",
      'etc/info/labels 600 app="web"',
      "etc/one.conf 600 a1",
      "var/run/secrets/kubernetes.io/serviceaccount/ca.crt 600 a1",
      "var/run/secrets/kubernetes.io/serviceaccount/namespace 600 shop",
      "var/run/secrets/kubernetes.io/serviceaccount/token 600 token 1 for default of web-1",
    ]);
    expect(api.executed).toEqual([]);
  });
  test("are kept in step, all but the part that Kubernetes does not renew either", async () => {
    putPod("web-1");
    putObjects("1");
    const { root = "" } = (await copy()) ?? {};
    putObjects("2");
    await until(() => readFileSync(join(root, "etc/app/keys/key"), "utf8"), "hush 2");
    await until(() => readFileSync(join(root, "etc/app/b.conf"), "utf8"), "2");
    putPod("web-1", everything, { app: "web", tier: "front" });
    await until(() => readFileSync(join(root, "etc/info/labels"), "utf8"), 'app="web"\ntier="front"');
    expect(readFileSync(join(root, "etc/one.conf"), "utf8")).toBe("a1");
    api.remove("configmaps", "settings");
    await until(() => String(existsSync(join(root, "etc/app/a.conf"))), "false");
    expect(existsSync(join(root, "etc/app/keys/key"))).toBe(true);
  });
  test("go with the intercept, and nothing is written afterwards", async () => {
    putPod("web-1");
    putObjects("1");
    const copies = await copy();
    putObjects("2");
    await copies?.[Symbol.asyncDispose]();
    expect(existsSync(copies?.root ?? "")).toBe(false);
    expect(readdirSync(runtime)).toEqual([]);
  });
  test("get a new token before the old one expires, and when the pod is replaced", async () => {
    const clock = new FakeClock();
    putPod("web-1");
    putObjects("1");
    api.tokenLifeMs = clock.wallMs() - Date.now() + 1_000_000;
    let name = "web-1";
    const { root = "" } = (await copy({ clock, pod: () => ({ name }) })) ?? {};
    const token = (): string => readFileSync(join(root, "var/run/secrets/kubernetes.io/serviceaccount/token"), "utf8");
    expect(token()).toBe("token 1 for default of web-1");
    await clock.advance(700_000);
    expect(token()).toBe("token 1 for default of web-1");
    await clock.advance(200_000);
    await until(token, "token 2 for default of web-1");
    name = "web-2";
    putPod("web-2");
    api.remove("pods", "web-1");
    const advancing = setInterval(() => void clock.advance(100), 1);
    await until(token, "token 3 for default of web-2");
    clearInterval(advancing);
  });
  test("leave nothing when the command ends while they are being copied", async () => {
    putPod("web-1");
    putObjects("1");
    for (const verb of ["list", "get"]) api.forbidden.add(`${verb} secrets`);
    const ending = new AbortController();
    api.program = () => {
      ending.abort(new AppError("cancelled", "Ctrl-C"));
      return ["sleep", "0.01"];
    };
    await expect(copy({ signal: ending.signal })).rejects.toThrow("Ctrl-C");
    expect(readdirSync(runtime)).toEqual([]);
  });
  test("are nothing where the container has none", async () => {
    putPod("web-1", []);
    expect(await copy()).toBeUndefined();
    putPod("web-1", [{ name: "data", mountPath: "/data" }]);
    expect(await copy()).toBeUndefined();
    expect(readdirSync(runtime)).toEqual([]);
  });
});

describe("without the right to the objects", () => {
  /** What a kubelet lays down. */
  function layKeys(text: string): void {
    const path = join(system, "etc/app/keys");
    rmSync(path, { recursive: true, force: true });
    mkdirSync(join(path, "..2026"), { recursive: true });
    writeFileSync(join(path, "..2026/key"), text, { mode: 0o755 });
    symlinkSync("..2026", join(path, "..data"));
    symlinkSync("..data/key", join(path, "key"));
  }
  const keysOnly = everything.filter(({ name }) => name === "keys");

  test("get and watch, `get` alone is enough", async () => {
    const clock = new FakeClock();
    putPod("web-1", keysOnly);
    putObjects("1");
    api.forbidden.add("list secrets");
    const { root = "", warnings } = (await copy({ clock })) ?? {};
    expect([files(root), warnings]).toEqual([["etc/app/keys/key 600 hush 1"], []]);
    putObjects("2");
    const advancing = setInterval(() => void clock.advance(1000), 1);
    await until(() => readFileSync(join(root, "etc/app/keys/key"), "utf8"), "hush 2");
    clearInterval(advancing);
  });
  test("the container's own tar is asked, and asked again", async () => {
    const clock = new FakeClock();
    putPod("web-1", keysOnly);
    for (const verb of ["list", "get"]) api.forbidden.add(`${verb} secrets`);
    api.program = ownTar;
    layKeys("from the pod");
    const { root = "", warnings } = (await copy({ clock })) ?? {};
    expect([files(root), warnings]).toEqual([["etc/app/keys/key 600 from the pod"], []]);
    layKeys("renewed");
    const advancing = setInterval(() => void clock.advance(5000), 1);
    await until(() => readFileSync(join(root, "etc/app/keys/key"), "utf8"), "renewed");
    clearInterval(advancing);
  });
  test("the agent is asked where the container has no tar", async () => {
    putPod("web-1", keysOnly);
    for (const verb of ["list", "get"]) api.forbidden.add(`${verb} secrets`);
    layKeys("by the agent");
    api.program = (container, command) =>
      container === "traffic-agent" && command[2] === "files"
        ? ["tar", "-cf", "-", "-C", (command[3] ?? "").replace("/tel_app_mounts", system), `./${command[4]}`]
        : undefined;
    const { root = "" } = (await copy()) ?? {};
    expect(files(root)).toEqual(["etc/app/keys/key 600 by the agent"]);
    expect(api.executed).toEqual([
      "app: tar -cf - -C /etc/app/keys/..data ./.",
      "traffic-agent: /telepresence traffic-agent files /tel_app_mounts/etc/app/keys/..data .",
    ]);
  });
  test("and without exec, what is missing is named with the verbs, and the rest is there", async () => {
    putPod("web-1");
    putObjects("1");
    for (const verb of ["list", "get"]) api.forbidden.add(`${verb} secrets`);
    api.forbidden.add("create serviceaccounts/token");
    api.forbidExec();
    const copies = await copy();
    expect(copies?.warnings).toEqual([
      expect.stringMatching(
        /^the files of \/etc\/app\/keys could not be copied: user "alice" may not get secrets in namespace shop .*pods\/exec/,
      ),
      expect.stringMatching(
        /^the files of \/var\/run\/secrets.* could only in part be copied: user "alice" may not create serviceaccounts\/token/,
      ),
    ]);
    expect(copies?.mounts).not.toContain("/etc/app/keys");
    expect(files(copies?.root ?? "").map((line) => line.split(" ")[0])).toEqual([
      "etc/app/a.conf",
      "etc/app/b.conf",
      "etc/info/labels",
      "etc/one.conf",
      "var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
      "var/run/secrets/kubernetes.io/serviceaccount/namespace",
    ]);
  });
});

describe("a volume that only the container has", () => {
  const dataOnly = everything.filter(({ name }) => name === "data");
  beforeEach(() => {
    mkdirSync(join(system, "data/sub"), { recursive: true });
    writeFileSync(join(system, "data/sub/big"), "x".repeat(300_000));
    writeFileSync(join(system, "data/run"), "#!/bin/sh", { mode: 0o755 });
    symlinkSync("sub/big", join(system, "data/link"));
    symlinkSync("/etc/passwd", join(system, "data/out"));
    api.program = ownTar;
  });

  test("is copied once on request, with a word on how far it is, and without what leads out", async () => {
    putPod("web-1", dataOnly);
    const said: string[] = [];
    const copies = await copy({ copy: ["data"], progress: (text) => said.push(text) });
    const root = copies?.root ?? "";
    expect(files(root).map((line) => line.slice(0, 24))).toEqual([
      "data/link 600 xxxxxxxxxx",
      "data/run 700 #!/bin/sh",
      "data/sub/big 600 xxxxxxx",
    ]);
    expect(statSync(join(root, "data/sub/big")).size).toBe(300_000);
    expect(copies?.warnings).toEqual([expect.stringContaining("1 entries of volume data were not copied")]);
    expect(said[0]).toBe("Copying volume data");
    expect(said[1]).toMatch(/^Copying volume data: [\d.]+ MiB in \d files$/);
    expect(copies?.mounts).toEqual(["/data"]);
  });
  test("may be called by its mount path, and holds other mounts inside it", async () => {
    putPod("web-1", [...dataOnly, { name: "settings", mountPath: "/data/sub" }]);
    putObjects("1");
    const { root = "" } = (await copy({ copy: ["/data"] })) ?? {};
    expect(files(root).map((line) => line.split(" ")[0])).toEqual(["data/run", "data/sub/a.conf", "data/sub/b.conf"]);
    expect(lstatSync(join(root, "data/link")).isSymbolicLink()).toBe(true);
  });
  test("that is larger than the limit is an error, and leaves nothing", async () => {
    putPod("web-1", dataOnly);
    await expect(copy({ copy: ["data"], limitBytes: 200_000 })).rejects.toMatchObject({
      message: "/data is larger than 0.2 MiB, the limit of a copy",
      hint: "raise it with --copy-limit",
    });
    expect(readdirSync(runtime)).toEqual([]);
  });
  test("that the container does not have is an error which names those it has", async () => {
    putPod("web-1");
    await expect(copy({ copy: ["dta"] })).rejects.toMatchObject({
      message: "container app has no volume dta mounted",
      hint: expect.stringContaining("data (/data)") as string,
    });
  });
  test("goes where the user wants it", async () => {
    putPod("web-1", dataOnly);
    const path = join(work, "mine");
    const copies = await copy({ copy: ["data"], path });
    expect(existsSync(join(path, "data/run"))).toBe(true);
    await copies?.[Symbol.asyncDispose]();
    expect(existsSync(path)).toBe(false);
  });
});
