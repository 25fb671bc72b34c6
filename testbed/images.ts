// The cluster's three images, made from files of this machine and kept in the cache: pause and CoreDNS are one program
// each; tools is a small system with Python, Node, busybox and network programs, and the samples on top of it.
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, cpSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { realpathSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { writeDockerArchive } from "#scripts/docker-archive.ts";
import type { Programs } from "./build.ts";
import { run } from "./exec.ts";
import { cacheDir, checkoutRoot, images } from "./layout.ts";
import { identify } from "./processes.ts";
import { findProgram } from "./prerequisites.ts";
import type { Say } from "./progress.ts";

const samplesDir = join(checkoutRoot, "testbed/samples");
const toolNames = ["iperf3", "curl", "nft", "ip", "ss"];
/** Raised when what the code below lays down changes in a way that the inputs do not show. */
const recipe = 1;
/** Parts of Python that no sample needs. */
const unwanted =
  /\/(__pycache__|test|tests|idlelib|tkinter|ensurepip|lib2to3|pydoc_data|distutils|turtledemo|config-[^/]+)(\/|$)|^\/usr\/share\/|^\/etc\//;

/** Archives to import, in the order of need. */
export async function buildImages(programs: Programs, say: Say): Promise<readonly string[]> {
  return [
    await cached("pause", programs.pause, (draft) => oneProgram(images.pause, programs.pause, draft)),
    await cached("coredns", programs.coredns, (draft) => oneProgram(images.coredns, programs.coredns, draft)),
    await toolsImage(say),
  ];
}

async function cached(name: string, key: string, build: (draft: string) => Promise<void>): Promise<string> {
  const digest = createHash("sha256").update(`${recipe}\n${key}`).digest("hex").slice(0, 16);
  const dir = join(cacheDir, "images");
  const file = join(dir, `${name}-${digest}.tar`);
  if (existsSync(file)) return file;
  mkdirSync(dir, { recursive: true });
  for (const old of readdirSync(dir)) {
    const abandoned = /^\.\w+-(\d+)/.exec(old); // by a run that was killed
    const isOld = abandoned === null ? old.startsWith(`${name}-`) : identify(Number(abandoned[1])) === undefined;
    if (isOld) rmSync(join(dir, old), { recursive: true, force: true });
  }
  const draft = join(dir, `.${name}-${process.pid}.tar`);
  await build(draft);
  renameSync(draft, file);
  return file;
}

async function inWorkDir(work: (root: string) => Promise<void>): Promise<void> {
  const root = join(cacheDir, "images", `.root-${process.pid}`);
  mkdirSync(root, { recursive: true });
  try {
    await work(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

async function oneProgram(reference: string, program: string, outFile: string): Promise<void> {
  await inWorkDir(async (rootDir) => {
    copyFileSync(program, join(rootDir, basename(program)));
    writeDockerArchive({ reference, rootDir, outFile, config: { Entrypoint: [`/${basename(program)}`] } });
  });
}

async function toolsImage(say: Say): Promise<string> {
  const files = await toolFiles();
  const facts = [...files].map(([path, source]) => {
    const stat = statSync(source);
    return `${path} ${stat.size} ${stat.mtimeMs}`;
  });
  const samples = readdirSync(samplesDir)
    .filter((name) => /\.(py|mjs)$/.test(name))
    .sort();
  const texts = samples.map((name) => `${name}\n${readFileSync(join(samplesDir, name), "utf8")}`);
  return await cached("tools", [...facts, ...texts].join("\n"), async (outFile) => {
    say("laying the image of tools and samples (usually 5 s, once)");
    await inWorkDir(async (root) => {
      const [baseDir, rootDir] = [join(root, "base"), join(root, "samples")];
      await laySystem(baseDir, files);
      mkdirSync(join(rootDir, "samples"), { recursive: true });
      for (const name of samples) cpSync(join(samplesDir, name), join(rootDir, "samples", name));
      const Env = ["PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1", "LANG=C.UTF-8"];
      writeDockerArchive({
        reference: images.tools,
        baseDir,
        rootDir,
        outFile,
        config: { Entrypoint: ["/bin/sh"], Env },
      });
    });
  });
}

/** Path in the image → file on this machine, links resolved. */
async function toolFiles(): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  const node = join(checkoutRoot, "node_modules/node/bin/node");
  const programs = new Map([["/usr/bin/node", existsSync(node) ? node : process.execPath]]);
  for (const name of toolNames) {
    const path = findProgram(name);
    if (path !== undefined) programs.set(`/usr/bin/${name}`, path);
  }
  const python = await pythonFiles();
  const linked = [...programs.values(), ...[...python.values()].filter((file) => /python3\.\d+$|\.so$/.test(file))];
  for (const [path, source] of [...programs, ...python]) files.set(path, realpathSync(source));
  for (const library of await librariesOf(linked)) files.set(library, realpathSync(library));
  files.set("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt");
  return files;
}

/** What Debian's own packages of Python hold; another Python on the machine does not come into it. */
async function pythonFiles(): Promise<ReadonlyMap<string, string>> {
  const program = realpathSync("/usr/bin/python3");
  const version = basename(program);
  const names = [`${version}-minimal`, `lib${version}-minimal`, `lib${version}-stdlib`];
  const { stdout } = await run("dpkg", ["-L", ...names]);
  const listed = stdout.split("\n").filter((path) => path.startsWith("/") && !unwanted.test(path));
  const files = listed.filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isFile() === true);
  return new Map([...files, "/usr/bin/python3"].map((path) => [path, path]));
}

async function librariesOf(programs: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await run("ldd", programs, { allowFailure: true });
  return [...new Set(stdout.split("\n").flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? []))];
}

async function laySystem(root: string, files: ReadonlyMap<string, string>): Promise<void> {
  for (const [path, source] of files) {
    const to = join(root, path);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(source, to);
    if ((statSync(source).mode & 0o111) !== 0 || path.includes(".so")) chmodSync(to, 0o755);
  }
  mkdirSync(join(root, "bin"), { recursive: true });
  copyFileSync("/usr/bin/busybox", join(root, "bin/busybox"));
  const { stdout } = await run("/usr/bin/busybox", ["--list"]);
  for (const applet of stdout.split("\n").filter((name) => name !== "" && name !== "busybox")) {
    if (!existsSync(join(root, "usr/bin", applet))) symlinkSync("busybox", join(root, "bin", applet));
  }
  mkdirSync(join(root, "tmp"));
  chmodSync(join(root, "tmp"), 0o1777);
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/:/bin/sh\nsample:x:1000:1000:sample:/tmp:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nsample:x:1000:\n");
  writeFileSync(join(root, "etc/nsswitch.conf"), "hosts: files dns\n");
}
