// What is asked of the manager for one intercept, and whether it has understood: one of an older version leaves out what it
// does not know, and would take more than is wished.
import { AppError } from "#base/error.ts";
import { unknownSessionId } from "#wire/control-api.ts";
import type { Feature } from "#wire/hello.ts";
import type { InterceptInfo, InterceptSpec } from "#wire/manager-api.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import type { InterceptRequest, ResolvedIntercept } from "./workload-access.ts";

/** A personal intercept keeps the id of its first session: callers go on sending it when the link was lost meanwhile. */
export function specOf(request: InterceptRequest, resolved: ResolvedIntercept, sessionId: string): InterceptSpec {
  const { name, attachment, existing, onRefused, probes, allowOverlap } = request;
  const filter = request.filter?.replaceAll(`${unknownSessionId}:`, `${sessionId}:`);
  return {
    name,
    ...(attachment === undefined ? {} : { kind: attachment }),
    workload: resolved.workload,
    containerName: resolved.containerName,
    ports: [...resolved.ports],
    ...(existing === undefined ? {} : { existing }),
    ...(onRefused === undefined ? {} : { onRefused }),
    ...(probes === undefined ? {} : { probes }),
    ...(filter === undefined ? {} : { filter }),
    ...(allowOverlap === undefined ? {} : { allowOverlap }),
    ...(resolved.tls === undefined ? {} : { tls: resolved.tls }),
  };
}

/** A traffic-manager that knows no filters drops them, and would have the whole traffic taken. */
export async function createFiltered(
  { rpc, session }: ManagerConnection,
  spec: InterceptSpec,
  signal: AbortSignal,
  createdAtMs?: number,
): Promise<InterceptInfo> {
  if (spec.kind === "wiretap" && !session.peer.features.includes("wiretap" satisfies Feature)) {
    throw new AppError("version_mismatch", "the traffic-manager is of an older version, which cannot copy traffic", {
      hint: "`telepresence uninstall --everything` and a new `telepresence connect` replace it, which ends everybody's sessions",
    });
  }
  if (spec.kind === "replace" && !session.peer.features.includes("replace" satisfies Feature)) {
    throw new AppError("version_mismatch", "the traffic-manager is of an older version, which knows no replacements", {
      hint: "`telepresence uninstall --everything` and a new `telepresence connect` replace it, which ends everybody's sessions",
    });
  }
  const info = await rpc.call("intercept.create", { spec, createdAtMs }, signal);
  const [unknown] = unknownWishes(spec, info.spec);
  if (unknown === undefined) return info;
  await rpc.call("intercept.remove", { id: info.id }, signal);
  throw new AppError("version_mismatch", `the traffic-manager is of an older version, which cannot ${unknown.what}`, {
    hint: `upgrade it, or leave out ${unknown.flag}`,
  });
}

/** What an older peer has left out of the spec. */
function unknownWishes(wished: InterceptSpec, known: InterceptSpec): readonly { what: string; flag: string }[] {
  return [
    ...(known.filter === wished.filter ? [] : [{ what: "choose requests", flag: "the filter" }]),
    ...(wished.tls === undefined || known.tls !== undefined ? [] : [{ what: "read TLS", flag: "the filter" }]),
    ...((known.probes ?? "app") === (wished.probes ?? "app")
      ? []
      : [{ what: "say who answers probes", flag: "--probes" }]),
  ];
}

/** An intercept that had lost its link: connections that began meanwhile were promised to the application. */
export function renewed(spec: InterceptSpec): InterceptSpec {
  return spec.existing === "reset" ? { ...spec, existing: "drain" } : spec;
}
