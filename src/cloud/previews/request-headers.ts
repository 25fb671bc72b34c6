// What becomes of a visitor's request before it goes on (pure). Ours is taken out: cookies, share tokens, whatever a
// visitor may pretend to be by headers that proxies and this server write. The intercept's mark is put in.
// Invariants: nothing that frames a message is passed on, so the sender frames anew; a header that a visitor names in
// Connection never takes away one of ours.
import { hopFields } from "#http/hop-fields.ts";
import type { Preview } from "./previews.ts";

/** A query parameter with the secret of a share link. */
export const shareParameter = "telepresence-share";
export const interceptIdHeader = "x-telepresence-intercept-id";

/** Names and values in turn, as Node has them. */
export type RawHeaders = readonly string[];

/** What asks this server for something. */
const asked: ReadonlySet<string> = new Set(["http2-settings", "expect"]);
/** Written anew, or by nobody but a proxy. */
const ours = /^(host|content-length|forwarded|x-forwarded-.*|x-real-ip|x-telepresence-.*)$/;
const isDropped = (name: string): boolean => hopFields.has(name) || asked.has(name);
const ownCookie = /^(__Host-)?telepresence-/;

/** Many servers read an underscore as a dash. */
const isOurs = (name: string): boolean => ours.test(name.replaceAll("_", "-"));

/** Headers that a preview may add. */
export function mayAdd(name: string): boolean {
  const lower = name.toLowerCase();
  return !isDropped(lower) && !isOurs(lower) && lower !== "cookie" && lower !== "baggage";
}

export interface Incoming {
  readonly rawHeaders: RawHeaders;
  /** The visitor's address. */
  readonly address: string;
  /** Of the preview's host, with its port where it has one. */
  readonly origin: URL;
  /** The banner can be added to no other coding. */
  readonly plainBody: boolean;
}

export type Headers = Record<string, string | string[]>;

/** Without a prototype: "constructor" and "__proto__" are names as others are. */
export const emptyHeaders = (): Headers => Object.create(null) as Headers;

/** Framing headers are the sender's business. */
export function requestHeaders(preview: Preview, incoming: Incoming): Headers {
  const headers = emptyHeaders();
  const named = connectionTokens(incoming.rawHeaders);
  const baggage: string[] = [];
  for (const [name, value] of pairsOf(incoming.rawHeaders)) {
    if (name.startsWith(":") || isDropped(name) || isOurs(name) || named.has(name)) continue;
    if (name === "baggage") baggage.push(value);
    else if (name === "cookie") add(headers, name, withoutOwnCookies(value), "; ");
    else if (name === "referer") add(headers, name, withoutShareToken(value), ", ");
    else add(headers, name, value, ", ");
  }
  if (headers["cookie"] === "") delete headers["cookie"];
  if (incoming.plainBody) headers["accept-encoding"] = "identity";
  for (const { name, value } of preview.headers) headers[name.toLowerCase()] = value;
  headers["host"] = ingressAuthority(preview.ingress);
  headers["x-forwarded-for"] = incoming.address;
  headers["x-forwarded-host"] = incoming.origin.host;
  headers["x-forwarded-proto"] = incoming.origin.protocol.slice(0, -1);
  headers[interceptIdHeader] = preview.interceptId;
  headers["baggage"] = mergeBaggage(baggage, preview.interceptId);
  return headers;
}

/** What the ingress is called, in Host and SNI. */
export function ingressName({ l5host, host }: Preview["ingress"]): string {
  return l5host ?? host;
}

function ingressAuthority(ingress: Preview["ingress"]): string {
  const name = ingressName(ingress);
  const shown = name.includes(":") ? `[${name}]` : name;
  const usual = ingress.port === (ingress.tls ? 443 : 80) || ingress.l5host !== undefined;
  return usual ? shown : `${shown}:${ingress.port}`;
}

/** The visitor's own entries stay, but for any of this name (W3C Baggage). */
function mergeBaggage(values: readonly string[], interceptId: string): string {
  const members = values
    .join(",")
    .split(",")
    .map((member) => member.trim())
    .filter((member) => member !== "" && member.split("=")[0]?.trim().toLowerCase() !== interceptIdHeader);
  const value = interceptId.replace(/[^\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]|%/g, (sign) =>
    encodeURIComponent(sign),
  );
  return [...members, `${interceptIdHeader}=${value}`].join(",");
}

function withoutOwnCookies(value: string): string {
  const kept = value.split(";").map((cookie) => cookie.trim());
  return kept.filter((cookie) => cookie !== "" && !ownCookie.test(cookie)).join("; ");
}

/** A path or an address, with everything else in it as it came. */
export function withoutShareToken(target: string): string {
  const at = target.indexOf("?");
  if (at === -1) return target;
  const [query = "", ...fragments] = target.slice(at + 1).split("#");
  const kept = query.split("&").filter((pair) => decoded(pair.split("=")[0] ?? "") !== shareParameter);
  const fragment = fragments.length === 0 ? "" : `#${fragments.join("#")}`;
  return target.slice(0, at) + (kept.length === 0 ? "" : `?${kept.join("&")}`) + fragment;
}

export function shareTokenOf(target: string): string | undefined {
  const at = target.indexOf("?");
  if (at === -1) return undefined;
  const pairs = target.slice(at + 1).split("&");
  const pair = pairs.find((one) => decoded(one.split("=")[0] ?? "") === shareParameter);
  return pair?.slice(pair.indexOf("=") + 1);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

/** Values of all cookies of this name: a page of another host may have set one more. */
export function cookiesNamed(header: string | undefined, name: string): readonly string[] {
  const cookies = (header ?? "").split(";").map((cookie) => cookie.trim());
  return cookies.filter((cookie) => cookie.startsWith(`${name}=`)).map((cookie) => cookie.slice(name.length + 1));
}

/** Lower case. */
export function connectionTokens(rawHeaders: RawHeaders): ReadonlySet<string> {
  const values = pairsOf(rawHeaders).filter(([name]) => name === "connection");
  return new Set(values.flatMap(([, value]) => value.split(",").map((token) => token.trim().toLowerCase())));
}

/** Names in lower case. */
export function pairsOf(rawHeaders: RawHeaders): readonly (readonly [string, string])[] {
  const pairs: (readonly [string, string])[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    pairs.push([(rawHeaders[at] ?? "").toLowerCase(), rawHeaders[at + 1] ?? ""]);
  }
  return pairs;
}

/** Repeated fields are one list, cookies by their own sign (HTTP/2 sends each by itself). */
function add(headers: Headers, name: string, value: string, between: string): void {
  const before = headers[name];
  if (before === undefined || before === "") headers[name] = value;
  else if (value !== "") headers[name] = `${String(before)}${between}${value}`;
}

interface Unread {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly rawHeaders: RawHeaders;
}

/** Why a request is not passed on at all: two readers could take it for two different ones. */
export function unfitRequest({ method = "", url = "", rawHeaders }: Unread): string | undefined {
  if (method === "CONNECT" || method === "TRACE") return `the method ${method} is not served`;
  if (!/^\/[\x21-\x7e]*$/.test(url) || url.includes("#")) return "the request's target is not a path";
  const pairs = pairsOf(rawHeaders);
  const valuesOf = (name: string): readonly string[] => pairs.filter(([one]) => one === name).map(([, value]) => value);
  const hosts = new Set([...valuesOf("host"), ...valuesOf(":authority")]);
  if (hosts.size !== 1 || valuesOf("host").length > 1) return "the request has not one host";
  // eslint-disable-next-line no-control-regex -- these are what is looked for
  if (pairs.some(([, value]) => /[\x00-\x08\x0a-\x1f\x7f]/.test(value))) return "a header has signs that none may have";
  return unfitFraming(valuesOf("content-length"), valuesOf("transfer-encoding"));
}

/** Node's parser refuses these as well; this is what the proxy itself relies on. */
function unfitFraming(lengths: readonly string[], codings: readonly string[]): string | undefined {
  if (lengths.length > 1 || lengths.some((length) => !/^\d{1,15}$/.test(length)))
    return "the request's length is unclear";
  const isChunked = codings.join().trim().toLowerCase() === "chunked";
  return codings.length > 0 && (lengths.length > 0 || !isChunked) ? "the request's framing is unclear" : undefined;
}
