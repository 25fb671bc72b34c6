// A file of certificates that a flag names: what is wrong with it fails before anything is started.
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";

export interface CertificateFile {
  readonly flag: string;
  readonly file: string;
  readonly maxBytes: number;
}

/**
 * Its certificates alone, as PEM: the file of a key with its certificate stays here. To be read once, because it may be a
 * pipe. Throws a sentence about the flag.
 */
export function readCertificates({ flag, file, maxBytes }: CertificateFile, cwd: string): string {
  const refused = (why: string, cause?: unknown): AppError =>
    new AppError("usage", `${flag} is ${file}, ${why}`, cause === undefined ? {} : { cause });
  let text: string;
  try {
    text = readFileSync(resolve(cwd, file), "utf8");
  } catch (cause) {
    throw refused(`which cannot be read: ${describeFileError(cause)}`, cause);
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    for (const certificate of found) new X509Certificate(certificate);
  } catch (cause) {
    throw refused("which has a certificate that cannot be read", cause);
  }
  const kept = found.join("\n");
  if (found.length > 0 && kept.length <= maxBytes) return kept;
  throw refused(`expected PEM certificates, ${maxBytes} bytes at most`);
}
