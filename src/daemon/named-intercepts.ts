// Which intercept, or whose workload, a name means among everybody's intercepts.
import { AppError } from "#base/error.ts";
import { workloadKey, type InterceptInfo, type WorkloadRef } from "#wire/manager-api.ts";

export interface Everybody {
  readonly infos: readonly InterceptInfo[];
  /** Ids of one's own. */
  readonly own: ReadonlySet<string>;
}

export interface NamedIntercept {
  readonly name: string;
  /** `user@host`, or `user`. */
  readonly user?: string | undefined;
  readonly namespace: string;
}

/** chosen: what a terminal's page shows. */
const maxListed = 10;

/** Somebody else's intercept of that name, or id. Throws when there is none, or no single one. */
export function chooseOthers({ infos, own }: Everybody, named: NamedIntercept): InterceptInfo {
  const { name, user, namespace } = named;
  const byId = infos.find(({ id }) => id === name);
  const isIn = ({ spec }: InterceptInfo): boolean => spec.workload.namespace === namespace;
  const called = byId === undefined ? infos.filter((info) => info.spec.name === name && isIn(info)) : [byId];
  const ofUser = called.filter((info) => user === undefined || isUser(info, user));
  const others = ofUser.filter(({ id }) => !own.has(id));
  const [first, second] = others;
  if (first === undefined && ofUser.length > 0) {
    throw new AppError("usage", `the intercept ${name} is your own; end it with \`telepresence leave ${name}\``);
  }
  if (first === undefined) {
    const whose = user === undefined ? "" : ` of ${user}`;
    const text = `there is no intercept ${name}${whose} in namespace ${namespace}`;
    throw notThere(text, infos);
  }
  if (second !== undefined) {
    throw new AppError("ambiguous", `${others.length} people have an intercept ${name} in namespace ${namespace}`, {
      hint: `say whose with --owner: ${others.map(({ client }) => client).join(", ")}`,
    });
  }
  return first;
}

/** Where the intercept of that name is, or the workload of that name; those of one's own intercepts without a name. */
export function chooseWorkloads(
  { infos, own }: Everybody,
  name: string | undefined,
  namespace: string,
): readonly WorkloadRef[] {
  const isIn = ({ spec }: InterceptInfo): boolean => spec.workload.namespace === namespace;
  const mine = infos.filter(({ id }) => own.has(id));
  if (name === undefined) {
    if (mine.length > 0) return distinct(mine);
    if (infos.length === 0) {
      throw new AppError(
        "intercept_not_found",
        "nothing is intercepted now, so every application gets its own requests",
      );
    }
    throw new AppError("intercept_not_found", "you have no intercept, so a name is needed", {
      hint: `name one that is intercepted: ${describeAll(infos)}`,
    });
  }
  const candidates = [
    mine.filter(({ spec }) => spec.name === name),
    infos.filter((info) => isIn(info) && info.spec.workload.name === name),
    infos.filter((info) => isIn(info) && info.spec.name === name),
    infos.filter(({ id }) => id === name),
  ];
  const found = distinct(candidates.find((some) => some.length > 0) ?? []);
  if (found.length === 1) return found;
  if (found.length > 1) {
    const which = found.map((workload) => `${workload.kind} ${workload.name}`).join(", ");
    throw new AppError("ambiguous", `${name} is the name of intercepts of ${found.length} workloads`, {
      hint: `name one of them: ${which}`,
    });
  }
  throw notThere(`nothing intercepts ${name} in namespace ${namespace}, so its application gets all requests`, infos, {
    otherwise: `\`telepresence intercept ${name}\` would`,
  });
}

function notThere(text: string, infos: readonly InterceptInfo[], more?: { readonly otherwise: string }): AppError {
  const known = infos.flatMap(({ spec }) => [spec.name, spec.workload.name]);
  return new AppError("intercept_not_found", text, {
    hint: [more?.otherwise, `intercepted now: ${describeAll(infos)}`].filter((part) => part !== undefined).join("; "),
    fields: { known: [...new Set(known)] },
  });
}

/** `hello (Deployment hello in namespace shop) by ann@laptop, …` */
function describeAll(infos: readonly InterceptInfo[]): string {
  if (infos.length === 0) return "nothing";
  const shown = infos.slice(0, maxListed).map(({ spec: { name, workload }, client }) => {
    return `${name} (${workload.kind} ${workload.name} in namespace ${workload.namespace}) by ${client}`;
  });
  const more = infos.length - shown.length;
  return `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

function isUser({ client }: InterceptInfo, user: string): boolean {
  return client === user || client.slice(0, client.lastIndexOf("@")) === user;
}

function distinct(infos: readonly InterceptInfo[]): readonly WorkloadRef[] {
  return [...new Map(infos.map(({ spec: { workload } }) => [workloadKey(workload), workload])).values()];
}
