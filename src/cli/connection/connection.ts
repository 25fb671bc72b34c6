// From a command to a connected daemon: start the daemon, start the helper, connect, and say what happened.
import { AppError, isAppError } from "#base/error.ts";
import type { Connection, ConnectOptions, controlApi } from "#wire/control-api.ts";
import type { ResultOf } from "#wire/rpc.ts";
import type { ClientConfig } from "#cli/flags/config-file.ts";
import { readConfigFile } from "#cli/flags/config-file.ts";
import type { CommandContext } from "#cli/context.ts";
import { openDaemon, openOrStartDaemon, quitDaemon } from "./daemon-socket.ts";
import type { OpenedDaemon } from "./daemon-socket.ts";
import type { ConnectFlags } from "#cli/flags/flags.ts";
import { connectFlagNames, connectOptions, namesPlace } from "#cli/flags/flags.ts";
import { Interrupts } from "#cli/interrupts.ts";
import type { HelperAttempt } from "./helper-start.ts";
import { callService, claimHelper, startHelper } from "./helper-start.ts";
import { connectionToJson } from "#cli/texts/json.ts";

/** chosen: a first connect may pull an image; the daemon has closer limits for each step. */
const connectLimitMs = 300_000;

export interface Connected extends Disposable {
  readonly daemon: OpenedDaemon;
  readonly config: ClientConfig;
  /** This command made the connection. */
  readonly fresh: boolean;
  /** Where it leads; not asked for where one stood. */
  readonly connection?: Connection;
}

/** `result`: what happens is the command's answer (connect). `progress`: it is on the way to another one. */
export type Telling = "result" | "progress";

export async function readConfig(context: CommandContext): Promise<ClientConfig> {
  const { flags, machine, output } = context;
  const config = await readConfigFile(flags.config ?? machine.configFile, flags.config !== undefined);
  for (const key of config.withoutEffect) output.warn(`${key} in config.yml has no effect in this version`);
  return config;
}

/** Connects where the flags say, and is content when that is where the daemon is already. */
export async function connect(context: CommandContext, telling: Telling): Promise<Connected> {
  const config = await readConfig(context);
  const options = connectOptions(context.flags, context.environment, config);
  const daemon = await openOrStartDaemon(context, () => tell(context, telling, "Launching Telepresence User Daemon"));
  try {
    await checkRootless(daemon, options);
    const { fresh, connection } = await connectThrough(context, daemon, { options, config, telling });
    return { daemon, config, fresh, connection, [Symbol.dispose]: () => daemon[Symbol.dispose]() };
  } catch (error) {
    await giveUp(context, daemon);
    throw error;
  }
}

/**
 * For commands that only need some connection: one that stands is used as it is, unless flags name a place. Then the
 * daemon checks that it is the same one, whatever namespace this command means.
 */
export async function connectIfNeeded(
  context: CommandContext,
  more: Pick<ConnectOptions, "rootless"> = {},
): Promise<Connected> {
  const config = await readConfig(context);
  const daemon = await openOrStartDaemon(context, () => context.output.progress("Launching Telepresence User Daemon"));
  const result = (fresh: boolean): Connected => ({
    daemon,
    config,
    fresh,
    [Symbol.dispose]: () => daemon[Symbol.dispose](),
  });
  try {
    if (daemon.hello.connected && !namesPlace(context.flags)) return result(false);
    const options = { ...connectOptions(context.flags, context.environment, config), ...more };
    if (daemon.hello.connected) await keepStanding(daemon, options, context.flags);
    return result((await connectThrough(context, daemon, { options, config, telling: "progress" })).fresh);
  } catch (error) {
    await giveUp(context, daemon);
    throw error;
  }
}

/**
 * A name that came to nothing is no connection: without its daemon no later command meets it. Also when this command was
 * interrupted; but another command may have made a connection of it meanwhile.
 */
async function giveUp(context: CommandContext, daemon: OpenedDaemon): Promise<void> {
  daemon[Symbol.dispose]();
  if (!daemon.started || context.machine.connection === undefined) return;
  const calm = { ...context, interrupts: new Interrupts() };
  try {
    using running = await openDaemon(calm);
    if (running?.hello.connected === false) await quitDaemon(calm, running);
  } catch {
    // the first error counts
  }
}

/** Before a password is asked for: a connection without a device is no other one's. Ports left out are those it has. */
async function checkRootless({ client, hello }: OpenedDaemon, options: ConnectOptions): Promise<void> {
  if (!hello.connected || hello.helperRunning) return;
  const { connection } = await client.call("status", {}, statusLimitMs);
  const [standing, wanted] = [connection?.rootless?.proxy, options.rootless?.proxy];
  if (connection?.rootless === undefined) return;
  if (options.rootless === undefined) {
    const [why, hint] =
      standing === undefined
        ? ["for programs of `telepresence run`", "wait for them to end, or run `telepresence quit` and connect again"]
        : ["by proxies", "run `telepresence status` to see them, or `telepresence quit` and connect again"];
    throw new AppError("already_connected_elsewhere", `telepresence is connected without a network device, ${why}`, {
      hint,
    });
  }
  if (wanted === undefined || standing === undefined) return;
  const keep = (port: number, other: number): number => (port === 0 ? other : port);
  options.rootless.proxy = {
    socksPort: keep(wanted.socksPort, standing.socksPort),
    httpPort: keep(wanted.httpPort, standing.httpPort),
  };
}

/** What this command does not mean by its flags. */
async function keepStanding(daemon: OpenedDaemon, options: ConnectOptions, flags: ConnectFlags): Promise<void> {
  options.meant = connectFlagNames.filter((name) => flags[name] !== undefined);
  const { connection } = await daemon.client.call("status", {}, statusLimitMs);
  if (connection === undefined) return;
  options.kube.flags.namespace = connection.namespace;
  options.rootless = connection.rootless;
}

/** chosen: what the daemon may take to undo a connection that has no helper. */
const undoLimitMs = 5000;

/** chosen: status answers from memory but for one heart-beat. */
export const statusLimitMs = 15_000;

interface Wish {
  readonly options: ConnectOptions;
  readonly config: ClientConfig;
  readonly telling: Telling;
}

interface Outcome {
  /** It is new. */
  readonly fresh: boolean;
  readonly connection: Connection;
}

async function connectThrough(context: CommandContext, daemon: OpenedDaemon, wish: Wish): Promise<Outcome> {
  const needsNone = daemon.hello.helperRunning || wish.options.rootless !== undefined;
  try {
    return await tryConnect(context, daemon, wish, needsNone);
  } catch (error) {
    // The helper that was there when the daemon said hello has ended since, with its connection.
    if (!needsNone || !isAppError(error, "helper_failed")) throw error;
    return await tryConnect(context, daemon, wish, false);
  }
}

async function tryConnect(
  context: CommandContext,
  daemon: OpenedDaemon,
  wish: Wish,
  needsNone: boolean,
): Promise<Outcome> {
  const { client } = daemon;
  using claim = needsNone ? undefined : await claimHelper(context, client);
  const helper = claim === undefined ? undefined : await launchHelper(context, daemon, wish.telling);
  const limitMs = wish.config.connectTimeoutMs ?? connectLimitMs;
  const connecting = client.call("connect", wish.options, limitMs);
  const call = { over: false };
  const hopeless = helper === undefined ? never : helperIsHopeless(context, client, helper, call);
  try {
    const answer = await Promise.race([connecting, hopeless]);
    sayConnected(context, wish.telling, answer);
    return answer;
  } catch (error) {
    connecting.catch(() => undefined); // it ends with the connection
    if (isAppError(error, "helper_failed") && helper !== undefined)
      throw await Promise.race([helper.failure, Promise.resolve(error)]);
    throw error;
  } finally {
    call.over = true;
  }
}

function sayConnected(context: CommandContext, telling: Telling, answer: ResultOf<typeof controlApi, "connect">): void {
  const { fresh, connection, installedManager, warnings } = answer;
  for (const warning of warnings) context.output.warn(warning);
  const { context: name, namespace, server, managerNamespace } = connection;
  if (telling === "result") context.output.data(connectionToJson(connection, { fresh, installedManager }));
  // A connection that stood may have lost its traffic-manager.
  if (installedManager) tell(context, telling, `Installed the traffic-manager in namespace ${managerNamespace}`);
  if (fresh) tell(context, telling, `Connected to context ${name}, namespace ${namespace} (${server})`);
}

const never = new Promise<never>(() => undefined);

/**
 * Tells the daemon when the helper's program has ended: it undoes what it had and fails the call. Rejects only when it
 * does not. A helper that ends later, with the daemon, is nobody's concern any more.
 */
async function helperIsHopeless(
  { clock }: CommandContext,
  client: OpenedDaemon["client"],
  helper: HelperAttempt,
  call: { readonly over: boolean },
): Promise<never> {
  const failure = await helper.failure;
  if (call.over) return never;
  client.helperFailed(failure.message);
  await new Promise<void>((resolve) => void clock.after(undoLimitMs, resolve).unref());
  throw failure;
}

async function launchHelper(context: CommandContext, daemon: OpenedDaemon, telling: Telling): Promise<HelperAttempt> {
  tell(context, telling, "Launching Telepresence Root Daemon");
  if (await callService(context, daemon.client)) return { failure: never };
  try {
    return await startHelper(context, daemon.client);
  } catch (error) {
    if (error instanceof AppError) daemon.client.helperFailed(error.message);
    throw error;
  }
}

function tell({ output }: CommandContext, telling: Telling, text: string): void {
  if (telling === "result") output.line(text);
  else output.progress(text);
}
