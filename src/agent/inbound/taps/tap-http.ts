// A copy of a request of HTTP/1.1: a connection of its own, on which it comes as it was sent, and one header more. The
// connection is not shared with the next one, so that nobody waits for the process' answer and no request meets the end of
// an idle connection.
// @from agent/inbound/capture.ts
// @to agent/inbound/taps/port-taps.ts
import { AnswerReader } from "#agent/inbound/http/http-answer.ts";
import { contentOf } from "#agent/inbound/http/http-intake.ts";
import type { TakenIn } from "#agent/inbound/http/http-intake.ts";
import { copyHeader, copyMark } from "./port-taps.ts";
import type { PortTaps, RequestCopies, RequestForm } from "./port-taps.ts";
import type { AnswerEnd } from "./tap.ts";

const emptyLine = "\r\n".length;

/** Undefined when nobody wants a copy. The rest of its body is still to be written. */
export function copyHttp(taps: PortTaps, request: TakenIn, open: RequestForm["open"]): RequestCopies | undefined {
  const { asked, body, bytes, headBytes } = request;
  if (!taps.isWanted) return undefined;
  const copies = taps.copyRequest(asked, formOf(request, open));
  if (bytes.length > headBytes) copies?.write(bytes.subarray(headBytes));
  if (body.done) copies?.end();
  return copies;
}

function formOf({ head, headBytes, bytes }: TakenIn, open: RequestForm["open"]): RequestForm {
  return {
    open,
    head: (tap) => {
      const fieldsEnd = headBytes - emptyLine;
      const mark = Buffer.from(`${copyHeader}: ${copyMark(tap)}\r\n`);
      return Buffer.concat([bytes.subarray(0, fieldsEnd), mark, bytes.subarray(fieldsEnd, headBytes)]);
    },
    answer: () => new HttpAnswerEnd(head.method),
    contentOf: (body) => contentOf(head, body),
  };
}

class HttpAnswerEnd implements AnswerEnd {
  readonly #reader: AnswerReader;
  #isStream = false;

  constructor(method: string) {
    this.#reader = new AnswerReader(method);
  }

  get untilClose(): boolean {
    return this.#isStream || this.#reader.untilClose;
  }

  read(bytes: Buffer): boolean {
    if (!this.#isStream) this.#isStream = this.#reader.read(bytes, () => undefined) === "stream";
    return !this.#isStream && this.#reader.done;
  }
}
