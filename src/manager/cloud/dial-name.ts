// Dials a name of the cluster or of the Internet as the manager's dialer allows: each address is judged after resolving,
// so a name cannot be led elsewhere between check and use.
// @from manager/cloud/clouds.ts
import { lookup as systemLookup } from "node:dns/promises";
import type { Socket } from "node:net";
import { raceSignal } from "#base/abort.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Dialer } from "#egress/dial.ts";

/** The addresses of a name, as the pod's own resolver has them. */
export type Lookup = (host: string) => Promise<readonly string[]>;

/** chosen: of one name. */
const maxAddresses = 8;

export const lookupBySystem: Lookup = async (host) => {
  try {
    return (await systemLookup(host, { all: true, verbatim: true })).map(({ address }) => address);
  } catch (cause) {
    throw new AppError("unreachable", `the name ${host} does not resolve`, { cause });
  }
};

export interface NameDialer {
  readonly dialer: Pick<Dialer, "dialTcp">;
  readonly lookup: Lookup;
}

/** Tries the addresses in turn; rejects with what became of the last. */
export async function dialName(
  { host, port }: { readonly host: string; readonly port: number },
  { dialer, lookup }: NameDialer,
  signal: AbortSignal,
): Promise<Socket> {
  let failure = new AppError("unreachable", `the name ${host} has no address`);
  for (const address of (await raceSignal(lookup(host), signal)).slice(0, maxAddresses)) {
    try {
      return await dialer.dialTcp({ address, port }, signal);
    } catch (error) {
      signal.throwIfAborted();
      failure = toAppError(error);
    }
  }
  throw failure;
}
