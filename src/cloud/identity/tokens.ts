// Random names and secrets. A secret is shown once and kept as its hash: 256 random bits need no salt and no slow hash.
import { createHash, createHmac, randomBytes, randomInt, timingSafeEqual } from "node:crypto";

/** What a secret opens; it leads the text, so that a leaked one can be recognised. */
export type TokenKind =
  | "session"
  | "access"
  | "refresh"
  | "key"
  | "code"
  | "device"
  | "invite"
  | "browser"
  | "share"
  | "password"
  | "cluster"
  | "visitor";

const prefixes: Readonly<Record<TokenKind, string>> = {
  session: "tps_",
  access: "tpa_",
  refresh: "tpr_",
  key: "tpk_",
  code: "tpc_",
  device: "tpd_",
  invite: "tpi_",
  browser: "tpb_",
  share: "tph_",
  password: "tpw_",
  cluster: "tpm_",
  visitor: "tpv_",
};

export function newToken(kind: TokenKind): string {
  return prefixes[kind] + randomBytes(32).toString("base64url");
}

export function hashToken(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

/** Names a row; says nothing and opens nothing. */
export function newId(): string {
  return randomBytes(12).toString("hex");
}

/** Consonants that nobody mixes up; 20^8 of them. */
const codeLetters = "BCDFGHJKLMNPQRSTVWXZ";

/** What a person types from one screen into another: `BCDF-GHJK`. */
export function newUserCode(): string {
  const letters = Array.from({ length: 8 }, () => codeLetters[randomInt(codeLetters.length)]);
  return `${letters.slice(0, 4).join("")}-${letters.slice(4).join("")}`;
}

/** As it was typed, with or without its dash; undefined for what cannot be one. */
export function readUserCode(text: string): string | undefined {
  const letters = text.toUpperCase().replace(/[\s-]/g, "");
  return /^[BCDFGHJKLMNPQRSTVWXZ]{8}$/.test(letters) ? `${letters.slice(0, 4)}-${letters.slice(4)}` : undefined;
}

export function sign(key: string, text: string): string {
  return createHmac("sha256", key).update(text).digest("base64url");
}

export function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
