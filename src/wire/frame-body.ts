// Bodies of frames that are not plain bytes (PROTOCOL §4.6, §5.1, §6.1): OPEN's JSON, the reason of REJECT, RESET and
// GOAWAY, and the numbers of CREDIT and ACK.
import { ProtocolError } from "#base/error.ts";
import { readUint16, readUint32, writeUint32 } from "./frame.ts";
import { maxOpenBytes } from "./limits.ts";
import { openRequestSchema, resetCodes } from "./open.ts";
import type { OpenRequest, ResetReason } from "./open.ts";

/** protocol: GOAWAY's code for an orderly end; every other code is a ResetReason's. */
export const orderlyGoaway = 0;

/** chosen: longest text sent with a reason. */
const maxReasonTextBytes = 1024;

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true });
const lenientDecoder = new TextDecoder("utf-8");

export interface Reason {
  /** undefined: GOAWAY's orderly end. */
  readonly reason: ResetReason | undefined;
  readonly message: string;
}

const reasonsByCode = new Map<number, ResetReason>(
  Object.entries(resetCodes).map(([reason, code]) => [code, reason as ResetReason]),
);

export function encodeReason(code: number, message: string): Uint8Array {
  const text = encoder.encode(message);
  let length = Math.min(text.length, maxReasonTextBytes);
  // Cut between characters: bytes 10xxxxxx continue one.
  while (length < text.length && length > 0 && ((text[length] ?? 0) & 0xc0) === 0x80) length -= 1;
  const body = new Uint8Array(2 + length);
  body[0] = code >>> 8;
  body[1] = code;
  body.set(text.subarray(0, length), 2);
  return body;
}

/** A code of a later version reads as `internal`. */
export function decodeReason(body: Uint8Array): Reason {
  const code = readUint16(body, 0);
  const reason = code === orderlyGoaway ? undefined : (reasonsByCode.get(code) ?? "internal");
  return { reason, message: lenientDecoder.decode(body.subarray(2)) };
}

export function encodeUint32(value: number): Uint8Array {
  const body = new Uint8Array(4);
  writeUint32(body, 0, value);
  return body;
}

export function decodeUint32(body: Uint8Array): number {
  return readUint32(body, 0);
}

/** Throws a ProtocolError when the request does not fit its frame: nothing that an honest caller builds is so long. */
export function encodeOpen(request: OpenRequest): Uint8Array {
  const body = encoder.encode(JSON.stringify(request));
  if (body.length > maxOpenBytes) {
    throw new ProtocolError(`OPEN has ${body.length} bytes, expected at most ${maxOpenBytes}`, resetCodes.protocol);
  }
  return body;
}

/** Throws a ProtocolError whose wire code answers the OPEN: `protocol` for what is not JSON, else `unsupported`. */
export function decodeOpen(body: Uint8Array): OpenRequest {
  let value: unknown;
  try {
    value = JSON.parse(strictDecoder.decode(body));
  } catch (error) {
    throw new ProtocolError("OPEN is not JSON in UTF-8", resetCodes.protocol, { cause: error });
  }
  const parsed = openRequestSchema.safeParse(value);
  if (!parsed.success) {
    throw new ProtocolError("OPEN asks for something this version does not know", resetCodes.unsupported, {
      cause: parsed.error,
    });
  }
  return parsed.data;
}
