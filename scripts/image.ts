// The container image of manager, agent and cloud server, made from files of this machine: Node, the shared
// libraries it names, the bundles, koffi, certificates. Two layers: the system below, which changes with Node and the
// machine, and the program above. There is no shell in it; the entry point is a Node script, /telepresence, whose first
// argument names the program. Runs as an ordinary user unless the pod says otherwise.
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { softwareVersion } from "#base/version.ts";
import { projectRoot } from "./bundle.ts";
import { writeDockerArchive } from "./docker-archive.ts";

/** What an installation asks for unless it is told otherwise. */
export const imageReference = `docker.io/telepresence/telepresence:${softwareVersion}`;

/** The first argument of the container, and the bundle it starts. */
const imagePrograms = { "traffic-manager": "manager", "traffic-agent": "agent", cloud: "cloud" } as const;

/**
 * measured with 4000 connections opened at once through an agent: 69 MB instead of 140, and a tenth less CPU time; idle
 * it is 26 instead of 27. Sizes of the old space gain nothing and end a busy program; --optimize-for-size costs a fifth.
 */
const nodeFlags = ["--max-semi-space-size=1"];

/** The customary "nonroot". */
const userId = 65_532;
const dist = join(projectRoot, "dist");

export function imageFile(): string {
  return join(dist, "images", `telepresence-${softwareVersion}.tar`);
}

export async function buildImage(say: (line: string) => void): Promise<void> {
  const startedMs = performance.now();
  const work = join(dist, `.image-${process.pid}`);
  const [baseDir, rootDir] = [join(work, "system"), join(work, "program")];
  try {
    laySystem(baseDir);
    layPrograms(rootDir);
    const archive = writeDockerArchive({
      reference: imageReference,
      baseDir,
      rootDir,
      outFile: imageFile(),
      config: {
        Entrypoint: ["/usr/bin/node", ...nodeFlags, "/telepresence"],
        // Nothing else: an agent reports its environment, less what it knows to be its own.
        Env: ["PATH=/usr/bin:/"],
        User: `${userId}:${userId}`,
        WorkingDir: "/",
        Labels: { "org.opencontainers.image.title": "telepresence" },
      },
    });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    say(`image: ${imageReference}, ${Math.round(archive.bytes / 1e6)} MB, ${seconds} s`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function laySystem(root: string): void {
  const node = join(root, "usr/bin/node");
  mkdirSync(dirname(node), { recursive: true });
  const built = join(projectRoot, "node_modules/node/bin/node");
  copyFileSync(built, node);
  chmodSync(node, 0o755);
  strip(node);
  for (const library of librariesOf(built)) layFile(root, library);
  const certificates = "/etc/ssl/certs/ca-certificates.crt";
  if (existsSync(certificates)) layFile(root, certificates);
  mkdirSync(join(root, "tmp"));
  chmodSync(join(root, "tmp"), 0o1777);
  const etc = join(root, "etc");
  mkdirSync(etc, { recursive: true });
  writeFileSync(join(etc, "passwd"), `root:x:0:0::/:/\ntelepresence:x:${userId}:${userId}::/tmp:/\n`);
  writeFileSync(join(etc, "group"), `root:x:0:\ntelepresence:x:${userId}:\n`);
  writeFileSync(join(etc, "nsswitch.conf"), "hosts: files dns\n");
}

function layPrograms(root: string): void {
  const app = join(root, "app");
  mkdirSync(app, { recursive: true });
  for (const program of Object.values(imagePrograms)) {
    cpSync(join(dist, program), join(app, program), { recursive: true });
  }
  cpSync(join(dist, "node_modules"), join(app, "node_modules"), { recursive: true });
  writeFileSync(join(app, "package.json"), `${JSON.stringify({ type: "commonjs" })}\n`);
  writeFileSync(join(root, "telepresence"), startText);
  chmodSync(join(root, "telepresence"), 0o755);
}

/** A name without an ending is CommonJS, wherever it stands. */
const startText = `#!/usr/bin/node
const programs = ${JSON.stringify(imagePrograms)};
const [name] = process.argv.splice(2, 1);
if (!Object.hasOwn(programs, name)) {
  process.stderr.write(\`there is no program "\${name}" in this image; expected \${Object.keys(programs).join(" or ")}\\n\`);
  process.exit(2);
}
require(\`/app/\${programs[name]}/start.js\`);
`;

/** The path a program names is kept, and what it links to is what is copied. */
function layFile(root: string, path: string): void {
  const to = join(root, path);
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(realpathSync(path), to);
  if (basename(path).includes(".so")) chmodSync(to, 0o755);
}

/** Takes a fifth off where the machine has \`strip\`; Node's own symbol table for native packages is kept. */
function strip(file: string): void {
  try {
    execFileSync("strip", ["--strip-unneeded", file], { stdio: "ignore" });
  } catch {
    // no binutils here: a larger image, and nothing else
  }
}

/** The libraries the loader resolves for a program, as absolute paths, its own loader included. */
function librariesOf(program: string): readonly string[] {
  const output = execFileSync("ldd", [program], { encoding: "utf8" });
  if (output.includes("not found")) throw new Error(`Node lacks a shared library on this machine:\n${output}`);
  return output.split("\n").flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? []);
}
