// What becomes of an answer's headers (pure): the ingress's name gives way to the preview's wherever a browser acts upon
// it, and cookies become the preview host's own. Policies of the application are left as they are.
import { hopFields } from "#http/hop-fields.ts";
import { connectionTokens, emptyHeaders, ingressName, pairsOf } from "./request-headers.ts";
import type { Headers, RawHeaders } from "./request-headers.ts";
import type { Preview } from "./previews.ts";

/**
 * `alt-svc` names another way to the ingress; `x-accel-redirect` and `x-sendfile` are orders of an application to the
 * proxy before it, and this server may have one before it, too.
 */
const others: ReadonlySet<string> = new Set(["http2-settings", "alt-svc", "x-accel-redirect", "x-sendfile"]);
const isDropped = (name: string): boolean => hopFields.has(name) || others.has(name);
/** Of which Node's HTTP/2 throws for a second one; of those that an application repeats the first counts. */
const singular: ReadonlySet<string> = new Set(
  (
    "access-control-allow-credentials access-control-max-age access-control-request-method age authorization " +
    "content-encoding content-language content-length content-location content-md5 content-range content-type date dnt " +
    "etag expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location " +
    "max-forwards proxy-authorization range referer retry-after tk upgrade-insecure-requests user-agent " +
    "x-content-type-options"
  ).split(" "),
);
/** RFC 9110 §6.5.1: what frames, routes or changes an answer stands before it. */
const neverTrailer = /^(content-.*|set-cookie|host|location|refresh|cache-control|authorization|www-authenticate)$/;
const addresses: ReadonlySet<string> = new Set(["location", "content-location", "access-control-allow-origin"]);

/** `origin` is the preview's. */
export function answerHeaders(rawHeaders: RawHeaders, preview: Preview, origin: URL): Headers {
  const headers = emptyHeaders();
  const named = connectionTokens(rawHeaders);
  const rewrite = (address: string): string => rewriteAddress(address, preview.ingress, origin);
  for (const [name, value] of pairsOf(rawHeaders)) {
    if (isDropped(name) || named.has(name)) continue;
    const rewritten = rewriteValue(name, value, rewrite);
    if (rewritten === undefined) continue;
    const before = headers[name];
    if (before === undefined) headers[name] = name === "set-cookie" ? [rewritten] : rewritten;
    else if (!singular.has(name)) headers[name] = [...(Array.isArray(before) ? before : [before]), rewritten];
  }
  return headers;
}

/** What stands behind the body. */
export function answerTrailers(rawTrailers: RawHeaders): Record<string, string> {
  const trailers = emptyHeaders() as Record<string, string>;
  for (const [name, value] of pairsOf(rawTrailers)) {
    if (!isDropped(name) && !neverTrailer.test(name)) trailers[name] ??= value;
  }
  return trailers;
}

function rewriteValue(name: string, value: string, rewrite: (address: string) => string): string | undefined {
  if (name === "set-cookie") return ownCookie(value);
  if (name === "clear-site-data") return clearedHere(value);
  if (addresses.has(name)) return rewrite(value);
  if (name !== "refresh") return value;
  const [, before = "", address = ""] = /^([^;,]*[;,]\s*url\s*=\s*["']?)(.*)$/i.exec(value) ?? [];
  return before === "" ? value : before + rewrite(address);
}

/** Of the preview's host alone; none may take the place of ours. */
function ownCookie(value: string): string | undefined {
  const [pair = "", ...attributes] = value.split(";");
  if (/^\s*(__Host-)?telepresence-/i.test(pair)) return undefined;
  return [pair, ...attributes.filter((attribute) => !/^\s*domain\s*=/i.test(attribute))].join(";");
}

/** Cookies are cleared for the whole site: those of other previews and of the server's own pages may be among them. */
function clearedHere(value: string): string | undefined {
  const parts = value.split(",").map((part) => part.trim());
  const kept = parts.flatMap((part) =>
    part === '"*"' ? ['"cache"', '"storage"'] : part === '"cookies"' ? [] : [part],
  );
  return kept.length === 0 ? undefined : kept.join(", ");
}

/** An address at the ingress is one at the preview; all others stay as they are. */
function rewriteAddress(address: string, ingress: Preview["ingress"], origin: URL): string {
  const [, scheme, authority = "", rest = ""] = /^(https?:)?\/\/([^/?#\\@]+)(?!@)(.*)$/i.exec(address.trim()) ?? [];
  if (!isIngress(authority.toLowerCase(), ingress)) return address;
  return (scheme === undefined ? `//${origin.host}` : origin.origin) + rest;
}

function isIngress(authority: string, ingress: Preview["ingress"]): boolean {
  const [, name = "", port = ""] = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority) ?? [];
  const names = [ingressName(ingress), ingress.host].map((one) => one.toLowerCase());
  return names.includes(name.replace(/^\[|\]$/g, "")) && ["", "80", "443", String(ingress.port)].includes(port);
}

const withoutBanner: ReadonlySet<number> = new Set([204, 205, 206, 304]);
/** Where one of these stands, the body is as it was sent. */
const sealed = ["content-range", "digest", "content-digest", "repr-digest"];

/** Whether the banner may stand at the end of this answer. */
export function takesBanner(headers: Headers, status: number): boolean {
  const text = (name: string): string => String(headers[name] ?? "").toLowerCase();
  const type = text("content-type");
  return (
    status >= 200 &&
    !withoutBanner.has(status) &&
    /^text\/html\b/.test(type) &&
    !type.includes("utf-16") &&
    ["", "identity"].includes(text("content-encoding")) &&
    !sealed.some((name) => headers[name] !== undefined) &&
    !text("cache-control").includes("no-transform") &&
    !text("content-disposition").startsWith("attachment")
  );
}
