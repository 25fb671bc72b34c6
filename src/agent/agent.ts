// Builds the agent's parts in the order a connection meets them, listeners first; disposing undoes it in reverse.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { softwareVersion } from "#base/version.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { helloOf } from "#wire/hello.ts";
import type { AgentPort, CallersOfPort } from "#wire/agent-api.ts";
import type { AgentSettings } from "./config.ts";
import { Canary } from "./canary.ts";
import { startHealthServer } from "./health.ts";
import { openContainerDoor } from "./container-door.ts";
import { Decisions } from "./decisions.ts";
import { Dialing } from "./dialing.ts";
import { Idle } from "./idle.ts";
import { TcpCapture } from "./inbound/capture.ts";
import type { CaptureOptions } from "./inbound/capture.ts";
import { UdpCapture } from "./inbound/udp/capture-udp.ts";
import { IdleSessions } from "./inbound/http2/idle-sessions.ts";
import { TapPace } from "./inbound/taps/tap-pace.ts";
import { TapRoom } from "./inbound/taps/tap-room.ts";
import { TlsCertificates, whyUnreadable } from "./inbound/tls/tls-certificates.ts";
import { startIntroductions } from "./introduction.ts";
import { describeCallers } from "./kept-callers.ts";
import { isAnyListening } from "./listening.ts";
import { ManagerLinks } from "./manager-link.ts";
import { OlderConnections } from "./older-connections.ts";
import type { OlderConnectionsOptions } from "./older-connections.ts";
import { PassedConnections } from "./passed-connections.ts";
import { Redirect, openKernelTable } from "./redirect.ts";
import type { RedirectTable } from "./redirect.ts";
import { ServedIntercepts } from "./served.ts";
import { explainWhy } from "./why.ts";
import { UnreadConnections } from "./unread-connections.ts";

/** chosen: how often an ending agent looks whether it is still needed. */
const drainStepMs = 200;

export interface AgentOptions {
  readonly settings: AgentSettings;
  readonly clock: Clock;
  readonly log: Logger;
  /** The kernel's nft table but in tests. */
  readonly openTable?: (() => Promise<RedirectTable>) | undefined;
  /** How long an inert table stays; tests shorten it. */
  readonly redirectLingerMs?: number;
  /** How late timers may come before no copies are made; tests share the thread. */
  readonly lateMs?: number | undefined;
  /** Callers of HTTP/2 at once that ask nothing; tests shorten it. */
  readonly maxIdleSessions?: number | undefined;
}

export interface Agent extends AsyncDisposable {
  readonly fingerprint: string;
  readonly introductionPort: number;
  readonly healthPort: number;
  /** The ports it listens on, in the order of the configuration. */
  readonly agentPorts: readonly number[];
  readonly openConnections: number;
  /** An ephemeral agent that nobody has used for long; never resolves for a sidecar. */
  readonly idle: Promise<void>;
  /** Serves on until the application has ended and its connections have, or the signal aborts. */
  drain(signal: AbortSignal): Promise<void>;
}

export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { settings, clock, log } = options;
  const { config, podName, podIps } = settings;
  const hello = helloOf("agent");
  const scope = new Scope(log);
  try {
    const { served, passed, decisions, canary, ...reading } = serve(options);
    const redirect = scope.use(openRedirect(options, served));
    const parts = { served, redirect, passed, decisions, canary, ...reading, podName, podIps, clock, log };
    const captures = await listenOn(config.ports, parts, scope);
    const identity = createIdentity("traffic-agent");
    const facts = factsOf(settings, captures);
    const older = scope.use(openOlder({ passed, podIps, ports: config.ports, clock, log }, served, redirect));
    const applyRedirects = (): Promise<void> => older.during(() => redirect.update());
    const callers = (): readonly CallersOfPort[] => describeCallers(config.ports, redirect.callers);
    const linkParts = { identity, facts, hello, served, applyRedirects, callers, older, ...reading, clock, log };
    const links = scope.use(new ManagerLinks(linkParts));
    const openConnections = (): number => countOpen(captures);
    const ownPorts = captures.map((capture) => capture.port);
    const dialing = new Dialing({ podIps, ownPorts: () => ownPorts, clock, log });
    const isNeeded = (): boolean => served.size > 0 || redirect.inPlace || openConnections() + dialing.sessions > 0;
    const idleExitMs = config.ephemeral?.idleExitMs;
    const idle = idleExitMs === undefined ? undefined : scope.use(new Idle({ idleExitMs, isNeeded, clock }));
    const introductions = scope.use(
      await startIntroductions({
        host: "127.0.0.1",
        port: settings.ports.introduction,
        identity: { fingerprint: identity.fingerprint, ...facts },
        links,
        why: (question) => explainWhy({ ports: config.ports, ...reading, served, decisions, clock }, question),
        canary,
        dialing,
        onWanted: () => idle?.touch(),
        retire: () => retire({ idle, served, redirect, openConnections: openConnections() }),
        hello,
        clock,
        log,
      }),
    );
    scope.use(await openContainerDoor({ name: settings.doorName, revoke: links.revoke.bind(links), clock, log }));
    const health = scope.use(await startHealthServer(settings.ports.health, readiness(options, served, scope), clock));
    ownPorts.push(introductions.port, health.port);
    // A part is enough to tell keys apart.
    log.info("agent started", { pod: podName, ports: captures.length, fingerprint: identity.fingerprint.slice(0, 12) });

    return {
      fingerprint: identity.fingerprint,
      introductionPort: introductions.port,
      healthPort: health.port,
      agentPorts: captures.map((capture) => capture.port),
      get openConnections() {
        return openConnections();
      },
      idle: idle?.over ?? new Promise<void>(() => undefined),
      drain: (signal) => drain(config.ports, captures, clock, signal),
      [Symbol.asyncDispose]: () => scope[Symbol.asyncDispose](),
    };
  } catch (error) {
    await scope[Symbol.asyncDispose]();
    throw error;
  }
}

/** chosen: longer than an introduction takes; then its callers had better hear why nobody answers. */
const firstServedMs = 60_000;

/** Beside a stand-in nobody answers before a laptop has the traffic: until then callers stay with other pods. */
function readiness({ settings, clock }: AgentOptions, served: ServedIntercepts, scope: Scope): () => boolean {
  const { standIn = false } = settings.config;
  const startedMs = clock.now();
  let hasServed = !standIn;
  served.onChange(() => (hasServed ||= served.size > 0));
  return () => !scope.disposed && (hasServed || clock.now() - startedMs > firstServedMs);
}

type Capture = TcpCapture | UdpCapture;
type CaptureParts = Omit<CaptureOptions, "port">;

/** What is served, and what it takes to read it. */
function serve({ settings, clock, lateMs, maxIdleSessions }: AgentOptions) {
  const { ports, certificateVolumes = [], probes: podProbes = [] } = settings.config;
  const certificates = new TlsCertificates({ volumes: certificateVolumes, clock });
  const served = new ServedIntercepts(ports, (port, tls) => whyUnreadable(certificates, port, tls));
  const watching = {
    passed: new PassedConnections(),
    decisions: new Decisions(clock),
    canary: new Canary(ports, settings.podUid, clock),
  };
  const copying = { room: new TapRoom(), pace: new TapPace(served, clock, lateMs) };
  const idle = new IdleSessions(maxIdleSessions);
  return { podProbes, served, certificates, unread: new UnreadConnections(served), ...watching, ...copying, idle };
}

async function listenOn(ports: readonly AgentPort[], parts: CaptureParts, scope: Scope): Promise<readonly Capture[]> {
  const captures: Capture[] = [];
  for (const port of ports) {
    captures.push(scope.use(await (port.protocol === "tcp" ? TcpCapture : UdpCapture).listen({ ...parts, port })));
  }
  return captures;
}

/** As laptops and managers are told. */
function factsOf({ config, podName, podUid, podIps }: AgentSettings, captures: readonly Capture[]) {
  const ports = config.ports.map((port, index) => ({ ...port, agentPort: captures[index]?.port ?? 0 }));
  return { podName, podUid, podIps: [...podIps], version: softwareVersion, config: { ...config, ports } };
}

function countOpen(captures: readonly Capture[]): number {
  return captures.reduce((sum, capture) => sum + (capture instanceof TcpCapture ? capture.openConnections : 0), 0);
}

/** The intercepts of others are theirs to end; gives the connections that are still open. */
function retire(of: {
  readonly idle: Idle | undefined;
  readonly served: ServedIntercepts;
  readonly redirect: Redirect;
  readonly openConnections: number;
}): number {
  const { idle, served, redirect, openConnections } = of;
  if (idle === undefined) {
    throw new AppError("unsupported", "this agent is part of its pod's manifest, expected an ephemeral one", {
      hint: "remove it from the workload",
    });
  }
  const [client] = served.clients;
  if (client !== undefined) throw new AppError("busy", `this agent serves an intercept of ${client}, expected none`);
  idle.retire();
  redirect.hasten();
  return openConnections;
}

function openRedirect({ settings, openTable, redirectLingerMs, clock, log }: AgentOptions, served: ServedIntercepts) {
  const { config, podIps } = settings;
  return new Redirect({
    ports: config.ports,
    openTable: openTable ?? (() => openKernelTable(config.ports, { podIps, clock, log })),
    isTaken: (port) => served.isTaken(port),
    clock,
    log,
    ...(redirectLingerMs === undefined ? {} : { lingerMs: redirectLingerMs }),
  });
}

function openOlder(
  parts: Omit<OlderConnectionsOptions, "modeOf" | "isInForce">,
  served: ServedIntercepts,
  redirect: Redirect,
): OlderConnections {
  return new OlderConnections({
    ...parts,
    modeOf: (port) => served.existingOf(port),
    isInForce: (port) => port.takeover === "name" || redirect.isInForce(port),
  });
}

/**
 * A native sidecar is told to end when the application has ended; an ordinary one at the same moment as the application,
 * which may go on serving for a while. Both end when no connection is left and the application listens no more.
 */
async function drain(
  ports: readonly AgentPort[],
  captures: readonly Capture[],
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const retire = (): void => captures.forEach((capture) => capture instanceof TcpCapture && capture.retire());
  const needed = async (): Promise<boolean> => countOpen(captures) > 0 || (await isAnyListening(ports));
  try {
    for (retire(); await needed(); retire()) await clock.sleep(drainStepMs, signal);
  } catch (error) {
    if (!signal.aborted) throw error; // else the time to drain is over
  }
}
