// Who may go on with which session (PROTOCOL §6.5). The accepter of a link keeps its sessions here, by an id and a token
// that only their openers were told, and gives each new transport to the session that it names.
// Invariant: of several transports that name one session the one with the highest epoch has it; epochs only rise, so one
// that was on its way for long never takes a session from a later one.
import { randomBytes, timingSafeEqual } from "node:crypto";
import { AppError } from "#base/error.ts";
import type { Hello } from "#wire/hello.ts";
import { exchangeHello } from "./handshake.ts";
import type { Handshake } from "./handshake.ts";
import { canResume, resumptionOf } from "./resumption.ts";
import type { Resumption } from "./resumption.ts";
import { Session } from "./session.ts";
import type { OpenSessionOptions } from "./session.ts";
import type { TunnelSession } from "./tunnel.ts";

type AcceptOptions = Omit<OpenSessionOptions, "role">;

interface Entry {
  readonly session: Session;
  readonly resumption: Resumption;
  /** The present transport came to a door where only this session may go on. */
  isAdmitted: boolean;
}

export class ResumableSessions {
  readonly #sessions = new Map<string, Entry>();

  get size(): number {
    return this.#sessions.size;
  }

  /**
   * Answers a HELLO. Resolves with the new session, or with nothing when the transport was one for a session that stands.
   * Otherwise as `openSession`. With `onlySessionId` nothing begins here, and only that session goes on.
   */
  accept(options: AcceptOptions, onlySessionId?: string): Promise<TunnelSession | undefined> {
    const answer = (theirs: Hello): Hello => {
      if (onlySessionId !== undefined && theirs.resume?.sessionId !== onlySessionId) {
        throw new AppError("denied", "only the session that was admitted may go on here, and none begins here");
      }
      if (!canResume(options.hello, theirs)) return options.hello;
      return { ...options.hello, resume: this.#answer(theirs) };
    };
    const handshake = { ...options, role: "accepter", answer } as const;
    return exchangeHello(handshake, (done) => this.#complete(options, done, onlySessionId !== undefined));
  }

  #answer({ resume }: Hello): NonNullable<Hello["resume"]> {
    if (resume === undefined) {
      const [sessionId, token] = [randomBytes(12), randomBytes(32)].map((bytes) => bytes.toString("base64url"));
      return { sessionId: sessionId ?? "", token: token ?? "", epoch: 0, receivedSeq: 0 };
    }
    const { sessionId, token, epoch } = resume;
    const known = this.#sessions.get(sessionId);
    if (known === undefined || !isSame(known.resumption.token, token)) {
      throw new AppError(
        "not_found",
        "the session is not known here any more, expected one that this process accepted",
      );
    }
    if (epoch <= known.resumption.epoch) {
      throw new AppError(
        "denied",
        `the session is at epoch ${known.resumption.epoch}, expected a later one than ${epoch}`,
      );
    }
    known.resumption.epoch = epoch;
    return { sessionId, token, epoch, receivedSeq: known.session.stopReading() };
  }

  /** The session's name, and whether its transport came to a door where only this session may go on. */
  placeOf(session: TunnelSession): { readonly sessionId: string; readonly isAdmitted: boolean } | undefined {
    for (const [sessionId, entry] of this.#sessions) {
      if (entry.session === session) return { sessionId, isAdmitted: entry.isAdmitted };
    }
    return undefined;
  }

  #complete(options: AcceptOptions, handshake: Handshake, isAdmitted: boolean): TunnelSession | undefined {
    const { peer, mine, rest } = handshake;
    if (peer.resume !== undefined && mine.resume !== undefined) {
      const known = this.#sessions.get(mine.resume.sessionId);
      if (known !== undefined) known.isAdmitted = isAdmitted;
      known?.session.continueOn(options.transport, rest, peer.resume.receivedSeq);
      return undefined;
    }
    const resumption = resumptionOf(mine.resume);
    const session = new Session({ ...options, role: "accepter" }, handshake, resumption);
    if (resumption !== undefined) this.#keep(session, resumption);
    return session;
  }

  #keep(session: Session, resumption: Resumption): void {
    this.#sessions.set(resumption.sessionId, { session, resumption, isAdmitted: false });
    void session.closed.then(() => this.#sessions.delete(resumption.sessionId));
  }
}

function isSame(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
