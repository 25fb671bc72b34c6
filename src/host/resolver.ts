// How this laptop resolves names, and so where our DNS server must come in (DESIGN §7): systemd-resolved when it runs
// and programs really ask it; otherwise whatever resolv.conf names, by redirecting what is sent there.
import { readFile } from "node:fs/promises";
import type { Clock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import { exec } from "./exec.ts";
import { askedNameservers, parseResolvConf } from "./resolv-conf.ts";

export interface HostResolver {
  readonly mode: "resolved" | "nft";
  /** Who answers what is not ours. With systemd-resolved: its stub, or the servers it was given. */
  readonly nameservers: readonly string[];
  /** Whom this machine asks: what is sent there is to come to us. */
  readonly asked: readonly string[];
  /** Who answers what `nameservers`, this machine's own, ask us in turn, as programs are led to. */
  readonly behind?: readonly string[];
}

export interface ResolverProbe {
  readonly resolvConf: string;
  /** systemd-resolved's own upstreams (/run/systemd/resolve/resolv.conf), when the file is there. */
  readonly resolvedUpstreams: string | undefined;
  /** Whether `resolvectl` reaches a running systemd-resolved. */
  readonly resolvedRuns: boolean;
}

/** The stub's addresses (systemd-resolved(8)). */
const stubAddresses: ReadonlySet<string> = new Set(["127.0.0.53", "127.0.0.54"]);
const resolvectlMs = 3000;

/** The decision, pure. */
export function chooseResolver(probe: ResolverProbe): HostResolver {
  const named = askedNameservers(parseResolvConf(probe.resolvConf));
  const upstream = parseResolvConf(probe.resolvedUpstreams ?? "").nameservers;
  // resolv.conf may name the upstreams themselves while programs that use NSS or D-Bus ask resolved: then most
  // programs would not ask it, so the redirect is what catches them, and resolved's own questions too.
  if (probe.resolvedRuns && asksStub(named)) {
    return { mode: "resolved", nameservers: upstream.length > 0 ? upstream : named, asked: named };
  }
  // A resolver of this machine's own asks the others itself: that must not come to us, who would ask it again.
  const asked = named[0] !== undefined && isLoopback(named[0]) ? named.filter(isLoopback) : [...named, ...upstream];
  return { mode: "nft", nameservers: named, asked: [...new Set(asked)] };
}

export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1";
}

function asksStub(nameservers: readonly string[]): boolean {
  return nameservers.some((address) => stubAddresses.has(address));
}

export interface ResolverFiles {
  readonly resolvConf: string;
  readonly resolvedUpstreams: string;
}
export const systemFiles: ResolverFiles = {
  resolvConf: "/etc/resolv.conf",
  resolvedUpstreams: "/run/systemd/resolve/resolv.conf",
};

/** A missing or an empty file is no error: programs then ask this machine itself. */
export async function detectResolver(
  clock: Clock,
  signal: AbortSignal,
  files: ResolverFiles = systemFiles,
): Promise<HostResolver> {
  const resolvConf = (await readIfThere(files.resolvConf)) ?? "";
  return chooseResolver({
    resolvConf,
    resolvedUpstreams: await readIfThere(files.resolvedUpstreams),
    resolvedRuns: asksStub(parseResolvConf(resolvConf).nameservers) ? await resolvedRuns(clock, signal) : false,
  });
}

/** Asks `resolvectl`, which fails when nobody owns the service's name on the bus. */
async function resolvedRuns(clock: Clock, signal: AbortSignal): Promise<boolean> {
  try {
    const { exitCode } = await exec("resolvectl", ["dns"], { clock, signal, timeoutMs: resolvectlMs });
    return exitCode === 0;
  } catch (error) {
    if (isAppError(error, "command_failed") || isAppError(error, "timeout")) return false;
    throw error;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined; // absent or unreadable: either way it says nothing
  }
}
