// A self-signed X.509 certificate around a key (RFC 5280 §4.1), written by hand because Node can only read them. It
// exists because TLS wants one: nobody looks at anything but the key, so names and dates say nothing.
// Invariant: valid for ever, so no end needs a clock that is right.
import { randomBytes, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";

/** DER tags (X.690 §8). */
const tags = {
  integer: 0x02,
  bitString: 0x03,
  objectId: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  explicit0: 0xa0,
} as const;

/** Tag, length in its shortest form, contents. */
function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const lengthBytes: number[] = [];
  for (let rest = content.length; rest > 0; rest >>>= 8) lengthBytes.unshift(rest & 0xff);
  const header = content.length < 0x80 ? [content.length] : [0x80 | lengthBytes.length, ...lengthBytes];
  return Buffer.concat([Buffer.from([tag, ...header]), content]);
}

/** A positive INTEGER of these bytes. */
function integer(bytes: Uint8Array): Buffer {
  const first = bytes[0] ?? 0;
  return der(tags.integer, first >= 0x80 ? Buffer.from([0]) : Buffer.alloc(0), bytes);
}

function objectId(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const digits = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
    bytes.push(...digits);
  }
  return der(tags.objectId, Buffer.from(bytes));
}

function bitString(bytes: Uint8Array): Buffer {
  return der(tags.bitString, Buffer.from([0]), bytes); // 0 unused bits
}

const ecdsaWithSha256 = (): Buffer => der(tags.sequence, objectId("1.2.840.10045.4.3.2"));

function commonName(name: string): Buffer {
  const attribute = der(tags.sequence, objectId("2.5.4.3"), der(tags.utf8String, Buffer.from(name)));
  return der(tags.sequence, der(tags.set, attribute));
}

/** 1970 to the date RFC 5280 §4.1.2.5 reserves for "no end". */
function forEver(): Buffer {
  const from = der(tags.utcTime, Buffer.from("700101000000Z"));
  const to = der(tags.generalizedTime, Buffer.from("99991231235959Z"));
  return der(tags.sequence, from, to);
}

/** PEM of a certificate for this P-256 key pair, signed with itself. */
export function createCertificate(name: string, publicKey: KeyObject, privateKey: KeyObject): string {
  const serial = Buffer.concat([Buffer.from([0x40]), randomBytes(15)]); // positive, and no leading zero
  const toBeSigned = der(
    tags.sequence,
    der(tags.explicit0, integer(Buffer.from([2]))), // version 3
    integer(serial),
    ecdsaWithSha256(),
    commonName(name),
    forEver(),
    commonName(name),
    publicKey.export({ type: "spki", format: "der" }),
  );
  const signature = sign("sha256", toBeSigned, privateKey);
  const certificate = der(tags.sequence, toBeSigned, ecdsaWithSha256(), bitString(signature));
  const lines = certificate.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
