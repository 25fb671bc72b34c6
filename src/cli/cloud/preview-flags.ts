// The flags of previews, read: what is wrong with them fails before anything is started.
import { AppError } from "#base/error.ts";
import { readCertificates } from "./certificate-file.ts";

/** As commander has them. */
export interface IngressFlags {
  readonly ingressHost?: string;
  readonly ingressPort?: string;
  readonly ingressTls?: boolean;
  readonly ingressL5?: string;
  readonly ingressInsecure?: boolean;
  readonly ingressCa?: string;
}

export interface PreviewFlags extends IngressFlags {
  readonly banner?: boolean;
  readonly previewUrlBanner?: boolean;
  readonly addRequestHeaders?: readonly string[];
  readonly previewUrlAddRequestHeaders?: readonly string[];
  readonly team?: string;
}

/** Answers that flags give. */
export interface GivenIngress {
  readonly host?: string;
  readonly port?: number;
  readonly tls?: boolean;
  readonly l5host?: string;
}

export function readIngressFlags(flags: IngressFlags): GivenIngress {
  const { ingressHost, ingressPort, ingressTls, ingressL5 } = flags;
  if (ingressHost !== undefined && !isHost(ingressHost)) {
    throw new AppError(
      "usage",
      `--ingress-host is "${ingressHost}", expected an IP address or a name, service.namespace say`,
    );
  }
  if (ingressL5 !== undefined && !isHost(ingressL5)) {
    throw new AppError("usage", `--ingress-l5 is "${ingressL5}", expected a host name`);
  }
  const port = ingressPort === undefined ? undefined : readPort(ingressPort);
  if (ingressPort !== undefined && port === undefined) {
    throw new AppError("usage", `--ingress-port is "${ingressPort}", expected a number from 1 to 65535`);
  }
  return {
    ...(ingressHost === undefined ? {} : { host: ingressHost }),
    ...(port === undefined ? {} : { port }),
    ...(ingressTls === undefined ? {} : { tls: ingressTls }),
    ...(ingressL5 === undefined ? {} : { l5host: ingressL5 }),
  };
}

/** chosen: a chain or a few authorities; the cloud server takes no more. */
const maxCaBytes = 32_000;

/** The text of `--ingress-ca`. */
export function readIngressCa({ ingressCa: file }: IngressFlags, cwd: string): string | undefined {
  if (file === undefined) return undefined;
  return readCertificates({ flag: "--ingress-ca", file, maxBytes: maxCaBytes }, cwd);
}

/** A DNS name or an IP address, by its letters. */
export function isHost(text: string): boolean {
  if (text.length > 253) return false;
  if (/^[0-9a-f:.]*:[0-9a-f:.]*$/i.test(text)) return true;
  return text.split(".").every((label) => /^(?!-)[\w-]{1,63}(?<!-)$/.test(label));
}

export function readPort(text: string): number | undefined {
  const port = Number(text);
  return /^\d{1,5}$/.test(text) && port > 0 && port < 65_536 ? port : undefined;
}

/** `NAME=VALUE`, as with the original; a colon is taken, too. */
export function readAddedHeaders(flags: PreviewFlags): { name: string; value: string }[] | undefined {
  const { addRequestHeaders, previewUrlAddRequestHeaders = addRequestHeaders } = flags;
  return previewUrlAddRequestHeaders?.map((pair) => {
    const [, name = "", value] = /^([^=:]+)[=:]\s*([\t\x20-\x7e]*)$/.exec(pair) ?? [];
    if (value !== undefined && /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/.test(name)) return { name, value };
    throw new AppError("usage", `--add-request-headers has "${pair}", expected NAME=VALUE`);
  });
}

/** `90s`, `30m`, `24h`, `7d`. */
export function readExpiry(text: string): number {
  const [, number, unit = ""] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const seconds = Number(number) * ({ s: 1, m: 60, h: 3600, d: 86_400 }[unit] ?? Number.NaN);
  if (seconds >= 60 && seconds <= 30 * 86_400) return seconds;
  throw new AppError("usage", `--expires is "${text}", expected 1m to 30d, for example 24h`);
}
