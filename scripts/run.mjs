// The front door of every npm script: `node scripts/run.mjs NAME [args]`. Works from Node 20 on with nothing
// installed: brings the npm packages into agreement with package-lock.json (one of them is Node 26 itself), then runs
// the TypeScript script NAME under that Node with node_modules/.bin first in PATH.
// Plain JavaScript and no imports but Node's own, because nothing else exists yet when it runs.
import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const node26 = join(root, "node_modules", "node", "bin", "node");
const usualInstallTime = "usually 20 to 60 s";

main();

function main() {
  const [name, ...args] = process.argv.slice(2);
  if (process.platform !== "linux") {
    fail(
      `The project's scripts run on Linux only, and this machine is ${process.platform}; use a Linux machine or VM.`,
    );
  }
  if (Number(process.versions.node.split(".")[0]) < 20) {
    fail(`Node 20 or later is needed to start, and this is ${process.versions.node}; install a newer nodejs.`);
  }
  const script = name === undefined ? undefined : findScript(name);
  if (script === undefined) {
    fail(
      `${name === undefined ? "No script was named" : `There is no script "${name}"`}; there are: ${listScripts()}.`,
      2,
    );
  }
  const stale = whyStale();
  if (stale !== undefined) installPackages(stale);
  runScript(script, args);
}

/** Scripts live in scripts/; the cluster's and the benchmarks' are in folders of their own. */
function findScript(name) {
  if (!/^[a-z][a-z-]*$/.test(name)) return undefined;
  const candidates = [`scripts/${name}.ts`, `testbed/${name}.ts`, `${name}/main.ts`];
  return candidates.map((path) => join(root, path)).find((path) => existsSync(path));
}

function listScripts() {
  const { scripts } = readJson(join(root, "package.json"));
  return Object.keys(scripts)
    .filter((name) => findScript(name) !== undefined)
    .join(", ");
}

/**
 * Undefined when what is installed is what package-lock.json asks for. npm keeps a copy of the lockfile of what it
 * installed, so the two are compared package by package: that also accepts what `npm install X` has just done.
 */
function whyStale() {
  const installedLock = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installedLock)) return "no npm packages are installed yet";
  const { "": _project, ...wanted } = readJson(join(root, "package-lock.json")).packages;
  const installed = readJson(installedLock).packages;
  const differs = Object.keys(wanted).find((path) => !agrees(wanted[path], installed[path]));
  if (differs !== undefined) return `${differs} is out of date`;
  const surplus = Object.keys(installed).find((path) => wanted[path] === undefined && !installed[path].optional);
  if (surplus !== undefined) return `${surplus} is no longer wanted`;
  return isExecutable(node26) ? undefined : "Node 26 is not installed yet";
}

/** What is optional may be absent: it is another platform's. */
function agrees(wanted, installed) {
  if (installed === undefined) return Boolean(wanted.optional || wanted.devOptional || wanted.peer);
  return installed.version === wanted.version && installed.integrity === wanted.integrity;
}

function installPackages(reason) {
  const npm = findNpm();
  if (npm === undefined) {
    fail("npm is not on the PATH, and it is needed to install the packages; install the Debian package npm.");
  }
  process.stderr.write(`Installing npm packages (${usualInstallTime}): ${reason}.\n`);
  const startedMs = Date.now();
  // npm itself tries a registry it cannot reach for many minutes.
  const ping = runNpm(npm, ["ping", "--fetch-retries=0", "--fetch-timeout=15000"]);
  const unreachable = networkCode(ping.text);
  // `npm ci` refuses a lockfile without the optional packages of every other platform, and a registry mirror that does
  // not carry those leaves them out; `install --no-save` takes the same locked versions and changes no file of ours.
  const flags = ["--no-save", "--no-audit", "--no-fund", unreachable === undefined ? "--prefer-offline" : "--offline"];
  const run = runNpm(npm, ["install", ...flags]);
  if (run.status !== 0) explainNpmFailure(run, unreachable ?? networkCode(run.text));
  if (!isExecutable(node26)) runNodeSetup();
  process.stderr.write(`Installed in ${Math.round((Date.now() - startedMs) / 1000)} s.\n`);
}

/** At loglevel error npm keeps quiet about engines: the packages run under the Node 26 that this very step brings. */
function runNpm(npm, args) {
  const run = spawnSync(npm[0], [...npm.slice(1), ...args, "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
  });
  return { status: run.status, signal: run.signal, text: `${run.stderr ?? ""}${run.error ?? ""}` };
}

/** Where install scripts are switched off, the `node` package's own has to be asked for. */
function runNodeSetup() {
  const run = spawnSync(process.execPath, ["installArchSpecificPackage.js"], {
    cwd: join(root, "node_modules", "node"),
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
  });
  if (run.status !== 0 || !isExecutable(node26)) {
    process.stderr.write(run.stderr ?? "");
    fail(
      `Node 26 for ${process.platform}-${process.arch} did not come with the npm package "node"; see the lines above.`,
    );
  }
}

function networkCode(text) {
  const codes = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|FETCH_ERROR)\b/;
  return codes.exec(text)?.[1] ?? (/network timeout at/.test(text) ? "timeout" : undefined);
}

function explainNpmFailure(run, network) {
  if (network !== undefined) {
    fail(
      `The npm registry cannot be reached (${network}), so the npm packages cannot be installed; ` +
        'connect to the network, or name a registry you can reach with "npm config set registry URL".',
    );
  }
  process.stderr.write(run.text);
  fail(`The npm packages could not be installed ("npm install" ended with ${run.signal ?? run.status}); see above.`);
}

/** The npm that started us, else the one on the PATH. */
function findNpm() {
  const started = process.env.npm_execpath;
  if (started !== undefined && started.endsWith("npm-cli.js") && existsSync(started))
    return [process.execPath, started];
  const folder = (process.env.PATH ?? "").split(":").find((entry) => entry !== "" && isExecutable(join(entry, "npm")));
  return folder === undefined ? undefined : [join(folder, "npm")];
}

function runScript(script, args) {
  const path = [join(root, "node_modules", ".bin"), process.env.PATH ?? "/usr/bin:/bin"].join(":");
  // without the dashes Node would take --env-file of a laptop's command for its own
  const child = spawn(node26, ["--", script, ...args], {
    stdio: "inherit",
    // Scripts act on the project wherever they are called from; INIT_CWD is npm's name for where that was.
    env: { INIT_CWD: process.cwd(), ...process.env, PATH: path },
  });
  const forward = (signal) => child.kill(signal);
  process.on("SIGTERM", forward);
  process.on("SIGHUP", forward);
  // A terminal's Ctrl-C reaches the child by itself; twice would end it without its cleaning up.
  process.on("SIGINT", process.stdin.isTTY ? () => {} : forward);
  child.on("error", (error) =>
    fail(`Node 26 cannot be started from node_modules (${error.message}); run "npm install --no-save".`),
  );
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    for (const name of ["SIGTERM", "SIGHUP", "SIGINT"]) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  });
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

function fail(sentence, code = 1) {
  process.stderr.write(`${sentence}\n`);
  process.exit(code);
}
