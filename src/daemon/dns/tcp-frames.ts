// DNS over TCP: each message behind its length in two bytes (RFC 1035 §4.2.2), whatever the pieces it comes in.

export class DnsFrames {
  #held: Uint8Array = new Uint8Array(0);

  /** The whole messages that these bytes complete; never holds more than one message's worth. */
  push(bytes: Uint8Array): Uint8Array[] {
    let rest = this.#held.length === 0 ? bytes : join(this.#held, bytes);
    const messages: Uint8Array[] = [];
    for (;;) {
      const length = rest.length < 2 ? undefined : ((rest[0] as number) << 8) | (rest[1] as number);
      if (length === undefined || rest.length < 2 + length) break;
      messages.push(rest.slice(2, 2 + length));
      rest = rest.subarray(2 + length);
    }
    this.#held = Uint8Array.from(rest);
    return messages;
  }
}

export function frameMessage(message: Uint8Array): Uint8Array {
  const framed = new Uint8Array(2 + message.length);
  framed[0] = message.length >>> 8;
  framed[1] = message.length & 0xff;
  framed.set(message, 2);
  return framed;
}

function join(left: Uint8Array, right: Uint8Array): Uint8Array {
  const joined = new Uint8Array(left.length + right.length);
  joined.set(left);
  joined.set(right, left.length);
  return joined;
}
