// What becomes of an answer's headers (pure): the ingress's name gives way to the preview's wherever a browser acts upon
// it, and cookies become the preview host's own. Policies of the application are left as they are.
import { hopFields } from "#http/hop-fields.ts";
import { ingressName, pairsOf } from "./request-headers.ts";
import type { Headers, RawHeaders } from "./request-headers.ts";
import type { Preview } from "./previews.ts";

/** `alt-svc` names another way to the ingress. */
const isDropped = (name: string): boolean => hopFields.has(name) || name === "alt-svc";
const addresses: ReadonlySet<string> = new Set(["location", "content-location", "access-control-allow-origin"]);

/** `origin` is the preview's. */
export function answerHeaders(rawHeaders: RawHeaders, preview: Preview, origin: URL): Headers {
  const headers: Headers = {};
  const named = pairsOf(rawHeaders)
    .filter(([name]) => name === "connection")
    .flatMap(([, value]) => value.split(",").map((token) => token.trim().toLowerCase()));
  const rewrite = (address: string): string => rewriteAddress(address, preview.ingress, origin);
  for (const [name, value] of pairsOf(rawHeaders)) {
    if (isDropped(name) || named.includes(name)) continue;
    const rewritten = rewriteValue(name, value, rewrite);
    if (rewritten === undefined) continue;
    const before = headers[name];
    if (before === undefined) headers[name] = name === "set-cookie" ? [rewritten] : rewritten;
    else headers[name] = [...(Array.isArray(before) ? before : [before]), rewritten];
  }
  return headers;
}

function rewriteValue(name: string, value: string, rewrite: (address: string) => string): string | undefined {
  if (name === "set-cookie") return ownCookie(value);
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
