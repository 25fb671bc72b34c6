// Debian packages of the servers that the tier "services" starts, installed when they are missing.
import { globSync } from "node:fs";
import { AppError } from "#base/error.ts";
import { lastLines, run } from "#testbed/exec.ts";
import { requireRoot } from "#testbed/prerequisites.ts";

/** A file that shows that the package is there. */
const proofs: Readonly<Record<string, string>> = { postgresql: "/usr/lib/postgresql/*/bin/initdb" };

export async function installServicePackages(say: (line: string) => void): Promise<void> {
  const missing = Object.keys(proofs).filter((name) => globSync(proofs[name] ?? "").length === 0);
  if (missing.length === 0) return;
  requireRoot();
  say(`installing Debian packages ${missing.join(", ")} (usually 10 to 60 s)`);
  const options = { env: { DEBIAN_FRONTEND: "noninteractive" }, timeoutMs: 600_000, allowFailure: true };
  const words = ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq", "--no-install-recommends", ...missing];
  let result = await run("apt-get", words, options);
  if (result.code !== 0) {
    await run("apt-get", ["update", "-qq"], options);
    result = await run("apt-get", words, options);
  }
  if (result.code === 0) return;
  const said = lastLines(result.stderr, 3);
  throw new AppError(
    "environment_incomplete",
    `the Debian packages ${missing.join(", ")} could not be installed: ${said}`,
  );
}
