// HELLO on the wire (PROTOCOL §3): 8 bytes of magic, u32 length, JSON. This form never changes between versions, so
// that any two ends can at least tell each other why they do not fit.
import { AppError, ProtocolError } from "#base/error.ts";
import { readUint32, writeUint32 } from "./frame.ts";
import { helloSchema } from "./hello.ts";
import type { Hello } from "./hello.ts";
import { maxHelloBytes } from "./limits.ts";
import { resetCodes } from "./open.ts";

/** protocol: begins with a zero byte, as no text protocol does. */
export const helloMagic: Uint8Array = new Uint8Array([0x00, 0x74, 0x65, 0x6c, 0x65, 0x70, 0x0d, 0x0a]);
const prefixBytes = helloMagic.length + 4;

const notOurs = (message: string): ProtocolError => new ProtocolError(message, resetCodes.protocol);

export function encodeHello(hello: Hello): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(hello));
  if (json.length > maxHelloBytes) throw notOurs(`HELLO has ${json.length} bytes, expected at most ${maxHelloBytes}`);
  const bytes = new Uint8Array(prefixBytes + json.length);
  bytes.set(helloMagic);
  writeUint32(bytes, helloMagic.length, json.length);
  bytes.set(json, prefixBytes);
  return bytes;
}

export interface DecodedHello {
  readonly hello: Hello;
  /** Bytes after the HELLO: the first frames. */
  readonly rest: Uint8Array;
}

/** Incremental: `push` gives undefined until the HELLO is whole, and throws at the first byte that is not ours. */
export class HelloDecoder {
  #bytes: Uint8Array = new Uint8Array(0);

  push(chunk: Uint8Array): DecodedHello | undefined {
    const bytes = new Uint8Array(this.#bytes.length + chunk.length);
    bytes.set(this.#bytes);
    bytes.set(chunk, this.#bytes.length);
    this.#bytes = bytes;
    for (let index = 0; index < Math.min(bytes.length, helloMagic.length); index += 1) {
      if (bytes[index] !== helloMagic[index]) throw notOurs("the far end does not speak Telepresence's link protocol");
    }
    if (bytes.length < prefixBytes) return undefined;
    const length = readUint32(bytes, helloMagic.length);
    if (length > maxHelloBytes) throw notOurs(`HELLO has ${length} bytes, expected at most ${maxHelloBytes}`);
    if (bytes.length < prefixBytes + length) return undefined;
    return {
      hello: parseHello(bytes.subarray(prefixBytes, prefixBytes + length)),
      rest: bytes.subarray(prefixBytes + length),
    };
  }
}

function parseHello(json: Uint8Array): Hello {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (error) {
    throw new ProtocolError("HELLO is not JSON in UTF-8", resetCodes.protocol, { cause: error });
  }
  const parsed = helloSchema.safeParse(value);
  if (!parsed.success) {
    throw new ProtocolError("HELLO lacks fields every version has", resetCodes.protocol, { cause: parsed.error });
  }
  return parsed.data;
}

export interface Agreement {
  /** The highest version that both speak. */
  readonly version: number;
  /** Features that both name. */
  readonly features: ReadonlySet<string>;
}

/** Throws `version_mismatch`, naming both versions and the command that mends it, when no version is common. */
export function negotiate(mine: Hello, theirs: Hello): Agreement {
  const version = Math.min(mine.protocol.max, theirs.protocol.max);
  if (version < mine.protocol.min || version < theirs.protocol.min) throw mismatch(mine, theirs);
  const offered = new Set(theirs.features);
  return { version, features: new Set(mine.features.filter((feature) => offered.has(feature))) };
}

function mismatch(mine: Hello, theirs: Hello): AppError {
  const [older, newer] = mine.protocol.max < theirs.protocol.max ? [mine, theirs] : [theirs, mine];
  return new AppError(
    "version_mismatch",
    `${describe(mine)} and ${describe(theirs)} have no protocol version in common`,
    { hint: updateHint(older, newer), fields: { mine: mine.software, theirs: theirs.software } },
  );
}

function describe(hello: Hello): string {
  const { min, max } = hello.protocol;
  const name = {
    laptop: "telepresence",
    manager: "the traffic-manager",
    agent: "the traffic-agent",
    cloud: "the cloud server",
  }[hello.role];
  return `${name} ${hello.software} (protocol ${min === max ? min : `${min} to ${max}`})`;
}

/** The older end is the one to change; a laptop changes itself, shared programs are changed by hand (DESIGN 20). */
function updateHint(older: Hello, newer: Hello): string {
  switch (older.role) {
    case "laptop":
      return `install version ${newer.software} on the laptop: \`npm install --global telepresence@${newer.software}\``;
    case "manager":
      return `replace the traffic-manager, which ends everybody's sessions: \`telepresence uninstall --everything\`, then \`telepresence connect\``;
    case "cloud":
      return `replace the cloud server by version ${newer.software}`;
    case "agent":
      return `replace the agents: \`telepresence uninstall --all-agents\`, then intercept again`;
  }
}
