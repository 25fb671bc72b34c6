// The login that this user has: where and as whom stands in cloud.json, which is nobody else's to read; its tokens are
// in the desktop's keyring where there is one, and in that file otherwise. Written in one piece, so that a reader sees
// the old one or the new one.
import { readFile, rm } from "node:fs/promises";
import { z } from "zod";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import type { Keyring } from "#host/keyring.ts";
import type { TokenAnswer } from "#wire/cloud-api.ts";

const secretSchema = z.union([
  z.object({ key: z.string() }),
  z.object({ accessToken: z.string(), refreshToken: z.string(), expiresMs: z.number() }),
]);
/** A key for automation, or what a login is refreshed by. */
export type CloudSecret = z.infer<typeof secretSchema>;

export function toSecret(answer: TokenAnswer, nowMs: number): CloudSecret {
  const expiresMs = nowMs + answer.expires_in * 1000;
  return { accessToken: answer.access_token, refreshToken: answer.refresh_token, expiresMs };
}

const fileSchema = z.object({
  url: z.string(),
  name: z.string(),
  email: z.string().optional(),
  /** The server has ended the login; who it was is still known. */
  ended: z.boolean().optional(),
  secret: secretSchema.optional(),
});

export interface CloudLogin {
  readonly url: string;
  readonly name: string;
  readonly email?: string | undefined;
  readonly ended?: boolean | undefined;
}

/** What of the laptop the credentials need. */
interface CredentialPlaces {
  readonly file: string;
  /** The desktop's keyring, where there may be one. */
  readonly keyring: Keyring | undefined;
  /** In one piece, and nobody else may read it. */
  replaceFile(text: string): Promise<void>;
}

/** Where the login at a cloud server is kept. */
export interface LoginPlaces extends CredentialPlaces {
  /** Held by the one program that may change the login. */
  tryLock(): Promise<Disposable | undefined>;
}

export interface StoredLogin extends CloudLogin {
  readonly secret: CloudSecret | undefined;
}

export async function saveLogin(
  places: CredentialPlaces,
  login: CloudLogin,
  secret: CloudSecret,
): Promise<"keyring" | "file"> {
  const stored = (await places.keyring?.store(login.url, JSON.stringify(secret))) === true;
  await places.replaceFile(toText(login, stored ? undefined : secret));
  return stored ? "keyring" : "file";
}

/** Tokens are of no more use, and who it was shows in `status`. */
export async function markEnded(places: CredentialPlaces, login: CloudLogin): Promise<void> {
  await places.keyring?.remove(login.url);
  await places.replaceFile(toText({ ...login, ended: true }, undefined));
}

export async function forgetLogin(places: CredentialPlaces, login: CloudLogin): Promise<void> {
  await places.keyring?.remove(login.url);
  await rm(places.file, { force: true });
}

function toText({ url, name, email, ended }: CloudLogin, secret: CloudSecret | undefined): string {
  return `${JSON.stringify({ url, name, email, ended, secret }, undefined, 2)}\n`;
}

/** Without the keyring, for `status`: nothing is unlocked to be shown. */
export async function readLogin({ file }: Pick<CredentialPlaces, "file">): Promise<StoredLogin | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    if (["ENOENT", "ENOTDIR"].includes((cause as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw new AppError("invalid_config", `${file} cannot be read: ${describeFileError(cause)}`, { cause });
  }
  const parsed = fileSchema.safeParse(toJson(text));
  if (parsed.success) return { ...parsed.data, secret: parsed.data.secret };
  throw new AppError("invalid_config", `${file} does not hold a login`, {
    hint: "log in again: telepresence login",
  });
}

export async function readSecret(places: CredentialPlaces, login: StoredLogin): Promise<CloudSecret | undefined> {
  if (login.secret !== undefined || login.ended === true) return login.secret;
  const text = await places.keyring?.read(login.url);
  const parsed = secretSchema.safeParse(text === undefined ? undefined : toJson(text));
  return parsed.success ? parsed.data : undefined;
}

function toJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
