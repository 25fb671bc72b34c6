// `intercept NAME --port L[:svcport] [-- cmd]`: connects and installs when needed, starts the intercept, hands over the
// pod's environment. With a command the intercept belongs to this process: it ends with the child, with this process,
// and the child ends when the intercept is ended elsewhere.
import { AppError, toAppError } from "#base/error.ts";
import { canAsk } from "#cli/cloud/ingress-questions.ts";
import { choosePreview, type PreviewChoice } from "#cli/cloud/preview-choice.ts";
import { readIngressCa } from "#cli/cloud/preview-flags.ts";
import { makePreview, settleIngress, type PreviewOrder } from "#cli/cloud/preview-making.ts";
import { isLoggedIn, requireLogin } from "#cli/cloud/required-login.ts";
import type { Connected } from "#cli/connection/connection.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import type { Environment } from "#cli/environment-syntax.ts";
import { readFilter } from "#cli/flags/intercept-filter.ts";
import {
  applyTarget,
  checkInterceptFlags,
  readAgentMode,
  readExisting,
  readOnRefused,
  readProbes,
  readTls,
} from "#cli/flags/intercept-flags.ts";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";
import { watchListening } from "#cli/own-command/listen-watch.ts";
import { findTakenPorts } from "#cli/own-command/local-ports.ts";
import { suggestWorkload } from "#cli/near-workload.ts";
import { requireCommand } from "#cli/own-command/own-command.ts";
import { leaveOwned, runOwning, type Owned } from "#cli/own-command/owned.ts";
import {
  checkBelongingsPlaces,
  completeEnvironment,
  readPodWants,
  reportDetail,
  tellProgram,
  writeEnvironmentFiles,
  type Belongings,
  type Volumes,
} from "#cli/pod-belongings.ts";
import { readTargetName } from "#cli/flags/target-name.ts";
import { overlapWarnings } from "#cli/texts/filter.ts";
import { formatIntercept } from "#cli/texts/intercept.ts";
import { interceptDetailToJson } from "#cli/texts/json.ts";
import { olderWarnings } from "#cli/texts/older-connections.ts";
import { describeUnread } from "#cli/texts/unread-connections.ts";
import type { PreviewIngress } from "#wire/cloud-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

/** chosen: a first intercept rolls the workload out. */
const interceptLimitMs = 300_000;

/** protocol: shells give 126 and more for commands that could not be run, or that a signal ended. */
const notAFailureOfItsOwn = 126;

/** What a person did not ask for by a flag. */
const personalText =
  "Only requests with that header come here, which a preview adds, because you are logged in; --http-header all takes all";

interface Established extends Belongings {
  readonly info: InterceptInfo;
}

export async function runIntercept(
  context: CommandContext,
  text: string,
  given: InterceptFlags,
  command: readonly string[],
): Promise<number> {
  const target = readTargetName(text);
  const { name } = target;
  const flags = applyTarget(target, given);
  for (const warning of checkInterceptFlags(flags)) context.output.warn(warning);
  await checkBelongingsPlaces(flags, context.environment.cwd);
  const ingressCa = readIngressCa(flags, context.environment.cwd);
  const preview = await planPreview(context, flags);
  const filter = await readFilter(name, preview.personal ? { ...flags, httpHeader: ["auto"] } : flags);
  const [file, ...args] = command;
  if (file !== undefined) await requireCommand(file, context.environment);
  using connected = await connectIfNeeded(context);
  const ingress = preview.url ? await planIngress(context, connected, { name, flags, preview }) : undefined;
  const wish = { name, flags, filter, owned: command.length > 0 };
  const begun = await establish(context, connected, wish).catch(async (error: unknown) => {
    const sought = { name: flags.workload ?? flags.deployment ?? name, namespace: context.flags.namespace };
    throw await suggestWorkload(connected.daemon.client, error, sought);
  });
  let established = begun;
  try {
    checkContainer(begun, flags, command);
    if (ingress !== undefined)
      established = await withPreview(context, connected, begun, { ingress, ingressCa, flags });
    const { environment, info } = begun;
    await writeEnvironmentFiles(context, { environment, workload: info.spec.workload }, flags);
  } catch (error) {
    await leaveOwned(context, connected.daemon.client, ownedOf(begun.info));
    throw error;
  }
  report(context, established, flags, file !== undefined);
  if (preview.byLogin && preview.personal) context.output.line(personalText);
  if (file === undefined) return 0;
  const taken = await findTakenPorts(established.info.spec.ports);
  const code = await runWithChild(context, connected, established, [file, ...args]);
  if (code > 0 && code < notAFailureOfItsOwn) warnOfTaken(context, taken);
  return code;
}

/** Logs in where the preview was asked for and nobody is. */
async function planPreview(context: CommandContext, flags: InterceptFlags): Promise<PreviewChoice> {
  if (flags.previewUrl === true) await requireLogin(context);
  return choosePreview(flags, { loggedIn: await isLoggedIn(context), canAsk: canAsk(context) });
}

/** What nobody has asked for by a flag keeps nobody from an intercept. */
async function planIngress(
  context: CommandContext,
  connected: Connected,
  { name, flags, preview }: { readonly name: string; readonly flags: InterceptFlags; readonly preview: PreviewChoice },
): Promise<PreviewIngress | undefined> {
  try {
    return await settleIngress(context, connected, targetOf(name, flags, context), flags);
  } catch (error) {
    const { code, message } = toAppError(error);
    if (!preview.byLogin || code === "cancelled" || code === "usage") throw error;
    context.output.warn(`${name} gets no preview URL: ${message}`);
    return undefined;
  }
}

function targetOf(name: string, flags: InterceptFlags, { flags: { namespace } }: CommandContext) {
  const { service, workload = flags.deployment, kind, container, port = [] } = flags;
  return { name, service, workload, kind, namespace, container, ports: [...port] };
}

/** The intercept stands, whatever becomes of its preview. */
async function withPreview(
  context: CommandContext,
  connected: Connected,
  established: Established,
  { ingress, ingressCa, flags }: Pick<PreviewOrder, "ingress" | "ingressCa"> & { readonly flags: InterceptFlags },
): Promise<Established> {
  const { name, workload } = established.info.spec;
  try {
    const order = { intercept: name, namespace: workload.namespace, ingress, ingressCa };
    const { id, url } = await makePreview(context, connected, order, flags);
    const l5host = ingress.l5host === undefined ? {} : { l5host: ingress.l5host };
    return { ...established, info: { ...established.info, preview: { id, url, ...l5host } } };
  } catch (error) {
    const { code, message } = toAppError(error);
    if (code === "cancelled") throw error;
    context.output.warn(
      `${name} has no preview URL: ${message}; the intercept stands, and \`telepresence preview create ${name}\` tries again`,
    );
    return established;
  }
}

interface Wish {
  readonly name: string;
  readonly flags: InterceptFlags;
  readonly filter: string | undefined;
  readonly owned: boolean;
}

async function establish(context: CommandContext, connected: Connected, wish: Wish): Promise<Established> {
  const { flags, name, owned } = wish;
  const { config, daemon } = connected;
  // Without any, a replacement takes all ports of the container.
  const ports = flags.port ?? (flags.attachment === "replace" ? [] : [String(config.defaultPort ?? 8080)]);
  const { info, environment, volumes, warnings } = await daemon.client.call(
    "intercept",
    {
      name,
      attachment: flags.attachment,
      ports: [...ports],
      address: flags.address ?? "127.0.0.1",
      agent: readAgentMode(flags.agent, config.agent),
      existing: readExisting(flags.existing),
      onRefused: readOnRefused(flags.onRefused),
      probes: readProbes(flags.probes),
      filter: wish.filter,
      allowOverlap: flags.allowOverlap,
      tls: readTls(flags),
      inspect: flags.inspect === false ? false : undefined,
      ownedByConnection: owned,
      ...readPodWants(flags, context.environment.cwd, owned),
      service: flags.service,
      workload: flags.workload ?? flags.deployment,
      kind: flags.kind,
      container: flags.container,
      namespace: context.flags.namespace,
    },
    config.interceptTimeoutMs ?? interceptLimitMs,
  );
  for (const warning of [...warnings, ...overlapWarnings(info), ...olderWarnings(info), ...describeUnread(info)])
    context.output.warn(warning);
  return { info, volumes, environment: completeEnvironment(environment, toldOf(info, volumes), flags) };
}

function toldOf(info: InterceptInfo, volumes: Volumes | undefined): Environment {
  return { TELEPRESENCE_INTERCEPT_ID: info.id, ...tellProgram(info.spec.containerName, volumes) };
}

/** Who names a container wants no other's environment, nor none. */
function checkContainer({ info, environment }: Established, flags: InterceptFlags, command: readonly string[]): void {
  const wanted = command.length > 0 || flags.envFile !== undefined || flags.envJson !== undefined;
  if (flags.container === undefined || !wanted || environment !== undefined) return;
  const { name, workload } = info.spec;
  throw new AppError(
    "unsupported",
    `the environment of container ${flags.container} of ${workload.kind} ${workload.name} could not be read, so ${name} is not intercepted`,
    { hint: "the warning above says why; leave out --container to go on without" },
  );
}

function report(
  { output }: CommandContext,
  { info, environment, volumes }: Established,
  flags: InterceptFlags,
  startsCommand: boolean,
): void {
  output.line(`Using ${info.spec.workload.kind} ${info.spec.workload.name}`);
  const shown = startsCommand ? { ...info, refusedByLaptop: 0 } : info; // refused because the command is yet to start
  output.lines(formatIntercept(shown, { debug: false, foreign: false }));
  reportDetail(output, flags, interceptDetailToJson(info, { environment, volumes }));
}

async function runWithChild(
  context: CommandContext,
  connected: Connected,
  { info, environment, volumes }: Established,
  command: readonly [string, ...string[]],
): Promise<number> {
  const { client } = connected.daemon;
  const env = { ...context.environment.all, ...(environment ?? toldOf(info, volumes)) };
  const over = new AbortController();
  const { machine, output, clock } = context;
  const warn = (text: string): void => output.warn(text);
  void watchListening({ ports: info.spec.ports, isListening: machine.isListening, warn, clock }, over.signal);
  try {
    return await runOwning(context, client, ownedOf(info), { command, env });
  } finally {
    over.abort();
  }
}

/** Whether the command wanted the port cannot be known: a test's command may expect somebody there. */
function warnOfTaken({ output }: CommandContext, taken: readonly string[]): void {
  for (const place of taken) {
    output.warn(
      `${place} was in use by another program when the command started; if the command was to listen there, end that program or choose another port with --port`,
    );
  }
}

/** Only the intercept: an ingest may have the name, too. */
function ownedOf({ spec: { name, workload } }: InterceptInfo): Owned {
  return { what: `the intercept ${name}`, params: { name, namespace: workload.namespace, only: "intercept" } };
}
