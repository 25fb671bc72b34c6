// `npm run demo`, as the README has it: the specification's own example, from nothing to nothing. In a cluster of its own,
// since it ends with its cluster.
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { run } from "#testbed/exec.ts";
import { checkoutRoot } from "#testbed/layout.ts";
import { report } from "./lab.ts";

const env = { ...process.env, TELEPRESENCE_TESTBED: "demo" };
const script = (...args: readonly string[]): ReturnType<typeof run> =>
  run(process.execPath, ["--", join(checkoutRoot, "scripts/run.mjs"), ...args], {
    env,
    allowFailure: true,
    timeoutMs: 400_000,
  });

afterAll(async () => await script("cluster", "down"));

test("the demo calls services by name, intercepts hello, and leaves nothing", async () => {
  const startMs = performance.now();
  const { code, stdout, stderr } = await script("demo");
  report("npm run demo", `${Math.round((performance.now() - startMs) / 1000)} s`);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const shown = [
    "Could not resolve host: hello", // before
    "<h1>Hello from the cluster</h1>",
    "udp works too",
    "$ telepresence intercept hello --port 8000 -- python3 -m http.server 8000",
    "<h1>Hello from the laptop</h1>",
    "hello: intercepted",
    "the intercept hello was ended by another command",
    "Namespace telepresence: traffic-manager removed",
    "the laptop's devices, routes, nft tables, resolver: as before.",
  ];
  let from = 0;
  for (const text of shown) {
    const at = stdout.indexOf(text, from);
    expect(at === -1 ? { missing: text, in: stdout.slice(from) } : undefined).toBeUndefined();
    from = at;
  }
  const failed = stdout.matchAll(/^ +\d+ calls of http:\/\/hello\/, (\d+) failed$/gm);
  expect([...failed].map(([, count]) => count)).toEqual(["0", "0", "0"]);
}, 420_000);
