// `npm run build`: dist/ as it is shipped. Layout:
//   bin/telepresence   launcher, the only file that belongs on a PATH (symbolic links to it work)
//   node/bin/node      the Node it runs on
//   PROGRAM/main.js    one bundle each, see bundle.ts; start.js beside it runs it with main.cache, its compiled code
//   daemon/page        the inspector's page
//   cloud/page         the team's dashboard
//   node_modules/koffi the one native package
//   images/*.tar       the container image (image.ts)
//   meta/              esbuild's metafiles, and the hash of the inputs that lets an unchanged build end at once
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, cpSync, existsSync, globSync, linkSync, mkdirSync } from "node:fs";
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bundle, bundlePage, programs, projectRoot } from "./bundle.ts";
import type { Program } from "./bundle.ts";
import { layCodeCaches, startText } from "./code-cache.ts";
import { buildImage, imageFile } from "./image.ts";

const dist = join(projectRoot, "dist");
const stampFile = join(dist, "meta", "inputs.sha256");

/** Brings dist/ up to date; says on stderr what it does. Resolves quickly when nothing changed. */
export async function build(say: (line: string) => void): Promise<void> {
  const inputs = hashInputs();
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === inputs && existsSync(imageFile())) {
    say("dist/ is up to date");
    return;
  }
  const startedMs = performance.now();
  mkdirSync(join(dist, "meta"), { recursive: true });
  rmSync(stampFile, { force: true });
  writeFileSync(join(dist, "package.json"), `${JSON.stringify({ type: "commonjs" })}\n`);
  layNode();
  layKoffi();
  layLauncher();
  for (const program of programs) await layProgram(program, say);
  await bundlePage(join(dist, "daemon", "page"), "inspector");
  await bundlePage(join(dist, "cloud", "page"), "team");
  await layCodeCaches(dist, say);
  await buildImage(say);
  writeFileSync(stampFile, inputs);
  say(`dist/ built in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
}

/** Everything that can change what is built. */
function hashInputs(): string {
  const patterns = ["src/**/*", "scripts/*.ts", "package.json", "package-lock.json", "tsconfig.json"];
  const files = globSync(patterns, { cwd: projectRoot })
    .filter((path) => !/\.(test|fake|contract)\.ts$/.test(path) && statSync(join(projectRoot, path)).isFile())
    .sort();
  const hash = createHash("sha256");
  for (const path of files)
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(projectRoot, path)))
      .update("\0");
  return hash.digest("hex");
}

async function layProgram(program: Program, say: (line: string) => void): Promise<void> {
  const fresh = join(dist, `.${program}-${process.pid}`);
  rmSync(fresh, { recursive: true, force: true });
  const metafile = await bundle(program, { outDir: fresh });
  writeFileSync(join(fresh, "start.js"), startText);
  replaceFolder(fresh, join(dist, program));
  writeFileSync(join(dist, "meta", `${program}.json`), JSON.stringify(metafile));
  const bytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
  say(`${program}: ${Math.round(bytes / 1024)} kB`);
}

function layLauncher(): void {
  const path = join(dist, "bin", "telepresence");
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, launcherText);
  chmodSync(path, 0o755);
}

/** `helper`, but for what people do with its service, `daemon` and `cloud serve` are programs of their own behind the same name. */
const launcherText = `#!/bin/sh
# Starts Telepresence from wherever this file really is; needs no environment.
self=$0
case $self in
  */*) ;;
  *) self=$(command -v -- "$self") ;;
esac
while [ -L "$self" ]; do
  target=$(PATH=/usr/bin:/bin:$PATH readlink -- "$self")
  case $target in
    /*) self=$target ;;
    *) self=\${self%/*}/$target ;;
  esac
done
root=\${self%/*}/..
program=cli
case \${1-} in
  helper)
    case \${2-} in
      enter | service | setup)
        program=helper
        shift
        ;;
      "")
        # the daemon's connection is its standard input; at a terminal a person asks what there is
        if [ ! -t 0 ]; then
          program=helper
          shift
        fi
        ;;
    esac
    ;;
  daemon)
    program=daemon
    shift
    ;;
  cloud)
    case \${2-} in
      serve)
        program=cloud
        shift
        ;;
    esac
    ;;
esac
# without the dashes Node would take --env-file for its own, wherever it stands
exec "$root/node/bin/node" -- "$root/$program/start.js" "$@"
`;

/** A hard link where the file system allows one: the binary is 150 MB. */
function layNode(): void {
  const from = join(projectRoot, "node_modules", "node", "bin", "node");
  const to = join(dist, "node", "bin", "node");
  if (existsSync(to) && statSync(to).ino === statSync(from).ino) return;
  mkdirSync(dirname(to), { recursive: true });
  rmSync(to, { force: true });
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to);
  }
}

/** The loader and this machine's native part; the sources and the other systems' parts stay out. */
function layKoffi(): void {
  const fresh = join(dist, `.node_modules-${process.pid}`);
  rmSync(fresh, { recursive: true, force: true });
  const modules = join(projectRoot, "node_modules");
  const native = join("@koromix", `koffi-linux-${process.arch}`);
  for (const path of koffiFiles(modules, native)) cpSync(join(modules, path), join(fresh, path), { recursive: true });
  replaceFolder(fresh, join(dist, "node_modules"));
}

function koffiFiles(modules: string, native: string): readonly string[] {
  const loader = globSync(["koffi/*.{js,cjs}", "koffi/src/koffi/**/*.{js,cjs}"], { cwd: modules });
  const wanted = loader.filter((path) => !path.endsWith("cnoke.cjs"));
  return [...wanted, "koffi/package.json", "koffi/LICENSE.txt", native].sort();
}

function replaceFolder(fresh: string, place: string): void {
  rmSync(place, { recursive: true, force: true });
  renameSync(fresh, place);
}

if (import.meta.main) {
  try {
    await build((line) => process.stderr.write(`${line}\n`));
  } catch (error) {
    // esbuild has already shown what it found, with the lines
    process.stderr.write(
      `dist/ was not built: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}\n`,
    );
    process.exitCode = 1;
  }
}
