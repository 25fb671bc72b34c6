// The front door of a checkout in which nothing is installed yet. Each case is a checkout of its own, whose registry is a
// port of loopback at which nobody listens.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");
const checkouts: string[] = [];
afterEach(() => {
  for (const path of checkouts.splice(0)) rmSync(path, { recursive: true });
});

function run(name: string, path = process.env["PATH"]): { readonly code: number | null; readonly said: string } {
  const checkout = mkdtempSync(join(tmpdir(), "telepresence-checkout-"));
  checkouts.push(checkout);
  mkdirSync(join(checkout, "scripts"));
  for (const file of ["package.json", "package-lock.json", "scripts/run.mjs"])
    cpSync(join(root, file), join(checkout, file));
  writeFileSync(join(checkout, "scripts/check.ts"), "");
  const env = {
    PATH: path,
    HOME: checkout,
    npm_config_cache: join(checkout, "cache"),
    npm_config_registry: "http://127.0.0.1:9/",
  };
  const { status, stderr } = spawnSync(process.execPath, [join(checkout, "scripts/run.mjs"), name], {
    env,
    encoding: "utf8",
  });
  return { code: status, said: stderr };
}

test("without a network for packages says so in one sentence, and what to do", { timeout: 60_000 }, () => {
  const { code, said } = run("check");
  expect(code).toBe(1);
  expect(said).toMatch(/^Installing npm packages \(usually 20 to 60 s\): no npm packages are installed yet\.\n/);
  expect(said.split("\n").slice(1)).toEqual([
    'The npm registry cannot be reached (ECONNREFUSED), so the npm packages cannot be installed; connect to the network, or name a registry you can reach with "npm config set registry URL".',
    "",
  ]);
});

test("without npm says which package has it", () => {
  const said = "npm is not on the PATH, and it is needed to install the packages; install the Debian package npm.\n";
  expect(run("check", dirname("/nowhere/node"))).toEqual({ code: 1, said });
});

test("names the scripts that there are for one that there is not", () => {
  expect(run("chekc")).toEqual({ code: 2, said: 'There is no script "chekc"; there are: check.\n' });
});
