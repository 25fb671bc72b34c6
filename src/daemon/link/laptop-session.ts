// How this laptop greets whoever is at the other end of a port-forward: the manager or an agent.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { openRpc, type Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { helloOf } from "#wire/hello.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import { managerApi } from "#wire/manager-api.ts";

interface Diagnostics {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Takes the transport over. The signal bounds the HELLO exchange. */
export function openLaptopSession(
  transport: Duplex,
  { clock, log }: Diagnostics,
  signal: AbortSignal,
): Promise<TunnelSession> {
  const hello = helloOf("laptop");
  return openSession({ transport, role: "opener", hello, clock, log, signal });
}

const apis = { manager: managerApi, introduction: introductionApi } as const;

export interface Conversation<Api extends keyof typeof apis> extends Disposable {
  readonly rpc: Rpc<(typeof apis)[Api]>;
}

export type IntroductionRpc = Rpc<typeof introductionApi>;

/** A session for a few questions to whoever is at the other end; whoever asks for it ends it, and the transport with it. */
export async function openConversation<Api extends keyof typeof apis>(
  transport: Duplex,
  { api, ...diagnostics }: Diagnostics & { readonly api: Api },
  signal: AbortSignal,
): Promise<Conversation<Api>> {
  const session = await openLaptopSession(transport, diagnostics, signal);
  try {
    const stream = await session.open({ kind: "rpc", api }, signal);
    const rpc = openRpc({ stream, calls: apis[api], log: diagnostics.log });
    return { rpc, [Symbol.dispose]: () => session.destroy() };
  } catch (error) {
    session.destroy();
    throw error;
  }
}
