// `connect --proxy-via SUBNET=WORKLOAD`: connections to some of the cluster's addresses leave from a pod of a workload,
// all others from the traffic-manager's. One way for each workload, however many subnets it is for.
import { AppError } from "#base/error.ts";
import { parseAddress, parsePrefix, prefixContains } from "#packet/address.ts";
import type { ConnectOptions } from "#wire/control-api.ts";
import type { Detour } from "./outbound/open-stream.ts";
import type { Ranges } from "./routing/cluster-ranges.ts";
import type { Via } from "./via.ts";

type Wish = NonNullable<ConnectOptions["proxyVia"]>[number];

export interface DetourParts {
  readonly wishes: readonly Wish[];
  /** What the words `service`, `pods` and `also` stand for now. */
  readonly ranges: () => Ranges;
  readonly also: readonly string[];
  readonly open: (workload: Wish["workload"]) => Promise<Via>;
}

export interface OpenDetour extends Detour {
  readonly via: Via;
}

/** Where connections leave from is settled before the first one is made. */
export async function openDetours({ wishes, ranges, also, open }: DetourParts): Promise<readonly OpenDetour[]> {
  const workloads = new Map(wishes.map(({ workload }) => [keyOf(workload), workload]));
  const detours: OpenDetour[] = [];
  for (const [key, workload] of workloads) {
    const subnets = wishes.filter((wish) => keyOf(wish.workload) === key).map(({ subnet }) => subnet);
    const via = await open(workload);
    detours.push({
      via,
      covers: (address) => covers(subnets, { ranges: ranges(), also }, address),
      follow: (onSession) => via.follow(onSession),
    });
  }
  return detours;
}

/** The subnets that are ranges, for those that route them. */
export function rangesOf(wishes: readonly Wish[]): readonly string[] {
  return wishes.map(({ subnet }) => subnet).filter((subnet) => parsePrefix(subnet) !== undefined);
}

function covers(
  subnets: readonly string[],
  { ranges, also }: { readonly ranges: Ranges; readonly also: readonly string[] },
  text: string,
): boolean {
  const address = parseAddress(text);
  if (address === undefined) return false;
  const named: Readonly<Record<string, readonly string[]>> = {
    service: ranges.services,
    pods: ranges.pods,
    also,
    all: [...ranges.services, ...ranges.pods, ...also],
  };
  return subnets.flatMap((subnet) => named[subnet] ?? [subnet]).some((cidr) => prefixContains(prefixOf(cidr), address));
}

function prefixOf(cidr: string): NonNullable<ReturnType<typeof parsePrefix>> {
  const prefix = parsePrefix(cidr);
  if (prefix !== undefined) return prefix;
  throw new AppError("invalid_config", `${cidr} is not an address range; expected a form like 10.0.0.0/8`, {
    hint: "check --proxy-via",
  });
}

const keyOf = ({ kind, name }: Wish["workload"]): string => `${kind ?? ""}/${name}`;
