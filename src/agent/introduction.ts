// Where laptops introduce managers (DESIGN 4): a tunnel session over the API server's port-forward to the pod's loopback.
// Whoever may port-forward to this pod may have its traffic; nobody else gets here, and it speaks no HTTP.
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { isOutbound } from "#egress/accept.ts";
import { openRpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import type { Hello } from "#wire/hello.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import type { Canary } from "./canary.ts";
import type { Dialing } from "./dialing.ts";
import type { ManagerLinks } from "./manager-link.ts";

/** chosen: laptops at once; an introduction takes milliseconds. */
const maxConnections = 64;
/** chosen: an introduction is over by then. */
const sessionMs = 30_000;
/** chosen: an introduction uses one stream; a laptop that dials from here (dialing.ts) is one person's programs. */
const limits = { maxStreams: 1024, budgetBytes: 6 * 1024 * 1024 };

/** chosen: one is used; each costs more than a stream that is dialled on. */
const maxConversations = 4;

export interface IntroductionOptions {
  readonly host: string;
  readonly port: number;
  readonly identity: ResultOf<typeof introductionApi, "identify">;
  readonly links: ManagerLinks;
  readonly canary: Canary;
  readonly why: (question: ParamsOf<typeof introductionApi, "why">) => ResultOf<typeof introductionApi, "why">;
  readonly dialing: Dialing;
  /** A laptop wants this agent. */
  readonly onWanted: () => void;
  /** Nobody does any more; gives the connections that it still carries, or throws why it stays. */
  readonly retire: () => number;
  readonly hello: Hello;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface IntroductionServer extends AsyncDisposable {
  readonly port: number;
}

export async function startIntroductions(options: IntroductionOptions): Promise<IntroductionServer> {
  const open = new Set<Socket>();
  const ended = new AbortController();
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => undefined); // 'close' follows
    void serve(socket, options, ended.signal);
  });
  server.maxConnections = maxConnections;
  server.listen(options.port, options.host);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      ended.abort(new AppError("cancelled", "the agent is ending"));
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function serve(transport: Socket, options: IntroductionOptions, signal: AbortSignal): Promise<void> {
  const { hello, clock, log } = options;
  let session: TunnelSession;
  try {
    const options = { transport, hello, role: "accepter", expectRole: "laptop", limits, clock, log, signal } as const;
    session = await openSession(options);
  } catch (error) {
    log.debug("introduction refused", { reason: toAppError(error).message });
    return;
  }
  const patience = clock.after(sessionMs, () => session.destroy());
  const visit: Visit = { dials: undefined, conversations: 0, patience };
  session.onIncoming((incoming) => accept(incoming, options, visit));
  await session.closed;
  patience[Symbol.dispose]();
  visit.dials?.[Symbol.dispose]();
}

interface Visit {
  /** Set while this laptop dials from here. */
  dials: Disposable | undefined;
  conversations: number;
  readonly patience: Disposable;
}

function accept(incoming: IncomingStream, options: IntroductionOptions, visit: Visit): void {
  const { request } = incoming;
  if (visit.dials !== undefined && isOutbound(request)) {
    void options.dialing.accept(incoming);
    return;
  }
  if (request.kind !== "rpc" || request.api !== "introduction") {
    incoming.reject("denied", 'expected an rpc stream of the api "introduction"');
    return;
  }
  visit.conversations += 1;
  if (visit.conversations > maxConversations) {
    incoming.reject("busy", `expected at most ${maxConversations} rpc streams of one introduction`);
    return;
  }
  openRpc({
    stream: incoming.accept(),
    serves: {
      api: introductionApi,
      handlers: {
        identify: () => {
          options.onWanted(); // who only reads files with the agent asks nothing else
          return options.identity;
        },
        introduce: async ({ manager, sessionId, canarySecret: secret }, signal) => {
          options.onWanted();
          await options.links.introduce(manager, sessionId, signal);
          if (secret !== undefined) options.canary.learn(sessionId, { secret, managerIps: manager.podIps });
          return { connected: true, canaries: true } as const;
        },
        "canary.expect": () => ({ ports: options.canary.expect() }),
        "dial.begin": () => {
          options.onWanted();
          visit.dials ??= options.dialing.begin();
          visit.patience[Symbol.dispose]();
          return {};
        },
        "dns.exchange": async ({ message }, signal) => {
          if (visit.dials === undefined) throw new AppError("denied", "expected `dial.begin` before a look-up");
          return { message: await options.dialing.exchange(message, signal) };
        },
        why: (question) => options.why(question),
        retire: () => ({ connections: options.retire() }),
      },
    },
    log: options.log,
  });
}
