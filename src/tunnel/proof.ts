// A proof that one knows a secret that both ends have, over a text that is used once; the secret itself is never sent.
import { createHmac, timingSafeEqual } from "node:crypto";

/** 64 hex digits. */
export function prove(secret: string, text: string): string {
  return createHmac("sha256", secret).update(text).digest("hex");
}

export function isProven(secret: string, text: string, proof: string): boolean {
  const expected = prove(secret, text);
  return proof.length === expected.length && timingSafeEqual(Buffer.from(proof), Buffer.from(expected));
}
