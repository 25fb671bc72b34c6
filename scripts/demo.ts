// `npm run demo [-- --keep]`: the product's main job on a real cluster, step by step, with each command as a person
// would type it on the laptop: connect, call services by name, intercept with the documentation's own example, leave,
// uninstall, and the proof that nothing is left. A step that does not show what it says ends the demo with exit code 1;
// however it ends, also by Ctrl-C, the cluster goes with it unless it is to stay.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { AppError, formatError, toAppError } from "#base/error.ts";
import * as cluster from "#testbed/cluster.ts";
import { instanceSuffix } from "#testbed/layout.ts";
import { build } from "./build.ts";
import { imageFile } from "./image.ts";
import { Interruption } from "./interruption.ts";

const keep = process.argv.includes("--keep");
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const page = "<h1>Hello from the laptop</h1>\n";
/** The documentation's own words. */
const exampleCommand = [
  "telepresence",
  "intercept",
  "hello",
  "--port",
  "8000",
  "--",
  "python3",
  "-m",
  "http.server",
  "8000",
];
/** A datagram to echo and back. */
const udpClient =
  "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); " +
  's.sendto(b"udp works too", ("echo", 7000)); print(s.recv(100).decode())';

const interruption = new Interruption();
process.stdout.on("error", () => undefined); // a terminal that was closed takes no line, and the cluster is to go
let example: ChildProcess | undefined;

try {
  await run();
} catch (error) {
  say(interruption.came ? "\nInterrupted." : `\nThe demo failed: ${formatError(toAppError(error))}`);
  process.exitCode = interruption.came ? 130 : 1;
} finally {
  await finish();
}

async function run(): Promise<void> {
  heading("A real Kubernetes cluster on this machine (the first time 8 to 12 minutes, then 20 seconds)");
  await build(say);
  await cluster.up({ say });
  await cluster.importImage(imageFile());
  await quietly("telepresence uninstall --everything; telepresence quit"); // what an earlier demo with --keep left
  say("Three services run in it: hello (Python), echo (Python) and visitor (Node), which calls hello all the time.");
  await shell("kubectl get deployments,services");
  const before = await traces();

  heading("Without Telepresence the laptop knows nothing of them");
  await expectFailure("curl -sS --max-time 3 http://hello/");

  heading("Connected, every program on it does");
  await shell("telepresence connect");
  await expectOutput("curl -sS --max-time 10 http://hello/", "Hello from the cluster");
  await expectOutput("curl -sS --max-time 10 http://hello.default.svc.cluster.local/", "Hello from the cluster");
  await expectOutput(`python3 -c '${udpClient}'`, "udp works too");
  await expectOutput("curl -sS --max-time 10 http://visitor/", "failed");
  await shell("telepresence list");

  heading("Intercepted, hello's callers in the cluster are answered from the laptop");
  await quietly("curl -sS --max-time 10 -X POST http://visitor/reset"); // counts from here, not from the cluster's start
  await cluster.onLaptop(["tee", "index.html"], { input: page });
  say(`$ ${exampleCommand.join(" ")}`);
  example = startExample();
  await untilVisitorsMeet("SimpleHTTP", example);
  await pause(2000);
  await expectOutput("kubectl exec deploy/visitor -- curl -sS --max-time 10 http://hello/", "Hello from the laptop");
  say("The visitor's new connections come to the laptop too; those it already had stay where they were:");
  await expectOutput("curl -sS --max-time 10 http://visitor/", "SimpleHTTP");
  await shell("telepresence list --intercepts");

  heading("After leave, the cluster answers again, and no caller noticed");
  await shell("telepresence leave hello");
  await untilVisitorsMeet("hello-");
  await pause(2000);
  await expectOutput("curl -sS --max-time 10 http://visitor/", " 0 failed");
  await ended(example);

  heading("Uninstalled, nothing is left, in the cluster or on the laptop");
  await shell("telepresence uninstall --everything");
  await shell("telepresence quit");
  await cluster.kubectl(["rollout", "status", "deployment/hello", "--timeout=60s"]);
  await expectNoTrace(before);
  say("Objects of the cluster, hello's template, the laptop's devices, routes, nft tables, resolver: as before.");
}

async function finish(): Promise<void> {
  if (keep) {
    if (example !== undefined) await ended(example);
    // Elsewhere the same words would be about another cluster (testbed/README.md).
    const which = instanceSuffix === "" ? "" : `TELEPRESENCE_TESTBED=${instanceSuffix.replace(/^-/, "")} `;
    const npm = `${which}npm run cluster --`;
    say(`\nThe cluster stays up. A shell on its laptop, with telepresence and kubectl:  ${npm} laptop`);
    say(`To remove it:  ${npm} down`);
  } else if (process.getuid?.() === 0) {
    say("");
    await cluster.down({ say });
  }
}

function heading(text: string): void {
  interruption.check();
  say(`\n== ${text}`);
}

/** Runs a line as the laptop's ordinary user and shows it with what it said; fails when it does. */
async function shell(line: string): Promise<string> {
  const { code, stdout, stderr } = await attempt(line);
  if (code !== 0) throw new AppError("command_failed", `"${line}" ended with code ${code}: ${stderr.trim()}`);
  return stdout;
}

async function expectOutput(line: string, wanted: string): Promise<void> {
  const stdout = await shell(line);
  if (!stdout.includes(wanted)) throw new AppError("command_failed", `"${line}" did not say "${wanted}"`);
}

async function expectFailure(line: string): Promise<void> {
  const { code } = await attempt(line);
  if (code === 0) throw new AppError("command_failed", `"${line}" succeeded; expected that it cannot`);
}

async function quietly(line: string): Promise<void> {
  await cluster.onLaptop(["sh", "-c", line], { allowFailure: true });
}

async function attempt(
  line: string,
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  interruption.check();
  say(`$ ${line}`);
  const onLine = (said: string): void => say(`  ${said}`);
  const result = await cluster.onLaptop(["sh", "-c", line], { allowFailure: true, timeoutMs: 180_000, onLine });
  for (const text of [result.stdout, result.stderr]) {
    const unended = text.slice(text.lastIndexOf("\n") + 1);
    if (unended !== "") onLine(unended);
  }
  return result;
}

function startExample(): ChildProcess {
  const spec = cluster.laptop(exampleCommand);
  const child = spawn(spec.file, [...spec.args], { stdio: ["ignore", "pipe", "pipe"] });
  const show = (chunk: Buffer): void => {
    // the web server's own log has a line for each of the visitor's calls
    for (const text of chunk.toString().split("\n")) if (text !== "" && !text.includes('"GET /')) say(`  ${text}`);
  };
  child.stdout.on("data", show);
  child.stderr.on("data", show);
  return child;
}

/** Waits until the visitor's last answer came from a server whose name begins so. */
async function untilVisitorsMeet(who: string, while_?: ChildProcess): Promise<void> {
  const endMs = performance.now() + 90_000;
  for (;;) {
    interruption.check();
    const { stdout } = await cluster.onLaptop(["curl", "-sS", "--max-time", "5", "http://visitor/stats"], {
      allowFailure: true,
    });
    if (stdout.includes(`"lastAnswerBy":"${who}`)) return;
    if (while_ !== undefined && while_.exitCode !== null) {
      throw new AppError("command_failed", `the example ended by itself with code ${while_.exitCode}`);
    }
    if (performance.now() > endMs) throw new AppError("timeout", `the visitor was not answered by ${who}… within 90 s`);
    await pause(300);
  }
}

/** The visitor calls ten times a second; a little later there is more to see. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const limit = setTimeout(() => child.kill("SIGINT"), 10_000);
  await new Promise((resolve) => child.once("exit", resolve));
  clearTimeout(limit);
}

type Traces = Readonly<Record<string, string>>;

/** Everything that Telepresence could leave behind, as text to compare. */
async function traces(): Promise<Traces> {
  const kinds = "namespaces,deployments,services,serviceaccounts,roles,rolebindings,configmaps,secrets";
  const clusterWide = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,customresourcedefinitions";
  const list = async (what: string): Promise<string> => {
    const columns = "custom-columns=:kind,:metadata.namespace,:metadata.name";
    const { stdout } = await cluster.kubectl(["get", what, "-A", "--no-headers", "-o", columns]);
    // Kubernetes makes these itself, some seconds after their namespace
    return stdout
      .split("\n")
      .filter((line) => !/ServiceAccount .* default|kube-root-ca\.crt/.test(line))
      .join("\n");
  };
  const asRoot = async (...argv: readonly string[]): Promise<string> =>
    (await cluster.onLaptop(argv, { user: "root", allowFailure: true })).stdout;
  return {
    "objects in namespaces": await list(kinds),
    "objects of the cluster": await list(clusterWide),
    "hello's template": (await cluster.kubectl(["get", "deployment", "hello", "-o", "jsonpath={.spec.template}"]))
      .stdout,
    devices: await asRoot("ip", "-o", "link"),
    routes: await asRoot("ip", "route", "show", "table", "all"),
    "nft tables": await asRoot("nft", "list", "tables"),
    "resolv.conf": await asRoot("cat", "/etc/resolv.conf"),
  };
}

/** A namespace takes Kubernetes some seconds to delete, so there are a few tries. */
async function expectNoTrace(before: Traces): Promise<void> {
  for (let tries = 15; ; tries--) {
    const after = await traces();
    const changed = Object.keys(before).filter((name) => before[name] !== after[name]);
    if (changed.length === 0) return;
    if (tries === 0) {
      for (const name of changed) say(difference(name, before[name] ?? "", after[name] ?? ""));
      throw new AppError("command_failed", `something is left: ${changed.join(", ")} changed`);
    }
    await pause(1000);
  }
}

function difference(name: string, before: string, after: string): string {
  const [old, now] = [before.split("\n"), after.split("\n")];
  const gone = old.filter((line) => !now.includes(line)).map((line) => `- ${line}`);
  const added = now.filter((line) => !old.includes(line)).map((line) => `+ ${line}`);
  return [`${name}:`, ...gone, ...added].join("\n");
}
