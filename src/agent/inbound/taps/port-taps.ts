// The wiretaps of one port: which of them want a copy of a request, or of a connection that is no HTTP. A filter that asks
// for the body does not hold the request up: its copy is held back instead, until the body has gone by.
// Invariants: where there is no wiretap nothing is made; kubelet's probes are not copied, nor is what a copy has caused
// and says so (`copyHeader`), so that a process which calls the workload itself goes round no circle.
// @from agent/inbound/capture.ts, agent/inbound/taps/tap-http.ts, agent/inbound/taps/tap-http2.ts
// @to agent/inbound/taps/tap.ts
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { filterLimits } from "#filter/limits.ts";
import type { AskedRequest, CopyRecord } from "#agent/decisions.ts";
import { sameIntercept } from "#agent/served.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { isProbe } from "#agent/inbound/probes.ts";
import { TapCopy } from "./tap.ts";
import type { AnswerEnd } from "./tap.ts";
import type { TapPace } from "./tap-pace.ts";
import type { TapRoom } from "./tap-room.ts";

/** In every copy of a request, with the id of its wiretap. */
export const copyHeader = "x-telepresence-wiretap";

/** A laptop chooses its intercepts' names. */
export function copyMark(tap: Taken): string {
  return encodeURI(tap.interceptId.toWellFormed());
}

export interface PortTapsOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly room: TapRoom;
  readonly pace: TapPace;
  readonly clock: Clock;
}

/** How one version of HTTP is copied. */
export interface RequestForm {
  /** To the laptop's process. */
  readonly open: (tap: Taken) => Promise<Duplex>;
  /** What goes before the body, where that is bytes. */
  readonly head?: (tap: Taken) => Buffer;
  readonly answer?: () => AnswerEnd;
  /** What filters see of a body. */
  readonly contentOf: (body: Buffer) => Buffer;
}

export class PortTaps {
  readonly #options: PortTapsOptions;
  readonly #streams = new Set<TapCopy>();

  constructor(options: PortTapsOptions) {
    this.#options = options;
    options.served.onChange(() => {
      for (const copy of this.#streams) if (!this.isCurrent(copy.tap)) copy.end();
    });
  }

  get isWanted(): boolean {
    return this.#taps.length > 0;
  }
  readonly isCurrent = (tap: Taken): boolean => this.#taps.some((other) => sameIntercept(tap, other));

  /** Undefined when nobody wants a copy. */
  copyRequest(asked: AskedRequest, form: RequestForm): RequestCopies | undefined {
    const taps = this.#taps;
    if (taps.length === 0 || isProbe(asked) || asked.headers.some(({ name }) => name === copyHeader)) return undefined;
    const view = { ...asked, body: undefined };
    const wishes = taps.flatMap((tap) => {
      const verdict = tap.filter?.decide(view) ?? true;
      return verdict === false ? [] : [{ tap, isSure: verdict === true }];
    });
    return wishes.length === 0 ? undefined : new RequestCopies(asked, wishes, { ...this.#options, form, taps: this });
  }

  /** All that the caller says, for those who want everything: what was read of it, and what is still to come. */
  copyConnection(caller: Duplex, said: Buffer, open: RequestForm["open"]): readonly CopyRecord[] {
    const records: CopyRecord[] = [];
    const taps = this.#taps.filter(({ filter }) => filter === undefined);
    const begin = (bytes: Buffer): void => {
      const { room, pace, clock } = this.#options;
      const onOpen = (record: CopyRecord): unknown => records.push(record);
      const copies = taps.filter(this.isCurrent).map((tap) => new TapCopy({ tap, room, pace, clock, onOpen }));
      for (const copy of copies) {
        copy.write(bytes);
        void copy.open(() => open(copy.tap));
      }
      this.follow(caller, copies);
    };
    // Who says nothing wants to know whether the port is open, as kubelet does.
    if (taps.length > 0 && said.length > 0) begin(said);
    else if (taps.length > 0) caller.once("data", begin);
    return records;
  }

  /** Copies bytes, not messages, until the caller's end. */
  follow(caller: Duplex, copies: readonly TapCopy[]): void {
    for (const copy of copies) this.#streams.add(copy);
    const onBytes = (bytes: Buffer): void => {
      for (const copy of copies) copy.write(bytes);
    };
    const onEnd = (): void => {
      for (const copy of copies) copy.end();
    };
    const onClose = (): void => {
      for (const copy of copies) {
        copy.callerLeft();
        this.#streams.delete(copy);
      }
    };
    caller.on("data", onBytes).once("end", onEnd).once("close", onClose);
    if (caller.readableEnded) onEnd();
    if (caller.closed) onClose();
  }

  get #taps(): readonly Taken[] {
    return this.#options.served.tapsOf(this.#options.port);
  }
}

interface CopyParts extends PortTapsOptions {
  readonly form: RequestForm;
  readonly taps: PortTaps;
}

/** The copies of one request. Who calls this tells it of the body what is sent on, as it is sent on. */
export class RequestCopies {
  /** Those that a laptop's process has. */
  readonly records: CopyRecord[] = [];
  readonly #asked: AskedRequest;
  readonly #parts: CopyParts;
  readonly #copies: readonly TapCopy[];
  /** Those whose filters ask for the body, and that body as far as it is known. */
  #undecided: readonly TapCopy[];
  #body: Buffer[] = [];
  #bodyBytes = 0;
  #isStream = false;

  constructor(
    asked: AskedRequest,
    wishes: readonly { readonly tap: Taken; readonly isSure: boolean }[],
    parts: CopyParts,
  ) {
    this.#asked = asked;
    this.#parts = parts;
    const copies = wishes.map(({ tap, isSure }) => ({ copy: this.#begin(tap), isSure }));
    this.#copies = copies.map(({ copy }) => copy);
    this.#undecided = copies.filter(({ isSure }) => !isSure).map(({ copy }) => copy);
    for (const { copy, isSure } of copies) if (isSure) this.#open(copy);
  }

  write(bytes: Buffer): void {
    for (const copy of this.#copies) copy.write(bytes);
    if (this.#undecided.length === 0) return;
    this.#body.push(bytes);
    this.#bodyBytes += bytes.length;
    if (this.#bodyBytes > filterLimits.bodyBytes) this.#decide(undefined);
  }

  /** The request is whole. */
  end(): void {
    if (this.#undecided.length > 0) this.#decide(this.#parts.form.contentOf(Buffer.concat(this.#body)));
    for (const copy of this.#copies) copy.end();
  }

  /** The request was an upgrade: what the caller says from here on is no message any more. */
  follow(caller: Duplex): void {
    this.#isStream = true;
    const copies = this.#copies.filter(({ isOver }) => !isOver);
    for (const copy of copies) copy.becomeStream();
    this.#parts.taps.follow(caller, copies);
  }

  /** In the middle of the request, or after it. */
  callerLeft(): void {
    if (this.#isStream) return; // its end is heard there
    for (const copy of this.#copies) copy.callerLeft();
  }

  #begin(tap: Taken): TapCopy {
    const { room, pace, clock, form } = this.#parts;
    const answer = form.answer?.();
    const onOpen = (record: CopyRecord): unknown => this.records.push(record);
    const copy = new TapCopy({ tap, room, pace, clock, onOpen, ...(answer === undefined ? {} : { answer }) });
    if (form.head !== undefined) copy.write(form.head(tap));
    return copy;
  }

  #open(copy: TapCopy): void {
    void copy.open(() => this.#parts.form.open(copy.tap));
  }

  #decide(body: Buffer | undefined): void {
    const undecided = this.#undecided;
    this.#undecided = [];
    this.#body = [];
    const view = { ...this.#asked, body };
    for (const copy of undecided) {
      if (copy.tap.filter?.evaluate(view) === true) this.#open(copy);
      else copy.callerLeft();
    }
  }
}
