// Whatever comes to a preview's host: who it is, whether the preview is awake, and then on to its ingress.
//
//   host ─▶ preview ─▶ cookie, share link or public? ─▶ awake? ─▶ forward.ts
//                            └─ browser ─▶ login at the main host (enter-page.ts) ─▶ one-time code ─▶ cookie
//
// Invariants: a cookie, a code and a share link are good for one preview; nothing is sent on before all is decided; what
// is said of a preview to somebody who may not see it is that it is there.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { formatError, isAppError, toAppError } from "#base/error.ts";
import { hashToken, newToken } from "#cloud/identity/tokens.ts";
import { localPath } from "#cloud/web/browser.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import type { Parts } from "#cloud/web/route.ts";
import type { PreviewHandler } from "#cloud/web/server.ts";
import { breakOff, forward, forwardUpgrade } from "./forward.ts";
import type { Passage } from "./forward.ts";
import type { LivePreviews } from "./live-previews.ts";
import { OpenVisits } from "./open-visits.ts";
import { refuseUpgrade, sayPlainly, wantsPage } from "./plain-page.ts";
import type { Refusal } from "./plain-page.ts";
import type { Preview, RemovedWhy } from "./previews.ts";
import { cookiesNamed, shareTokenOf, unfitRequest, withoutShareToken } from "./request-headers.ts";
import { findShare, findVisitor, redeemVisitCode, visitByShare } from "./visitors.ts";
import type { Visitor } from "./visitors.ts";

/** On each preview's host: where the login sends the browser back to. */
export const returnPath = "/.telepresence/enter";
/** chosen: requests without a visit that counts, by address; public ones. */
const [strangerRate, publicRate] = [
  { burst: 100, perSecond: 5 },
  { burst: 2000, perSecond: 500 },
];
/** chosen: a browser that is on its way to the login and back. */
const enteringSeconds = 600;
const visitSeconds = 12 * 3600;

export type AddressOfRequest = (request: IncomingMessage) => string;

/** The whole address, for the ingress, and the one that callers are counted by. */
export interface Addresses {
  readonly whole: AddressOfRequest;
  readonly counted: AddressOfRequest;
}

type Decision =
  | { readonly kind: "pass"; readonly preview: Preview; readonly visitor: Visitor }
  | { readonly kind: "redirect"; readonly location: string; readonly cookies: readonly string[] }
  | { readonly kind: "refuse"; readonly refusal: Refusal };

const removedTexts: Readonly<Record<RemovedWhy, string>> = {
  removed: "This preview was removed.",
  ended: "This preview is over: its intercept has ended.",
  expired: "This preview has expired: nobody used its intercept for a week.",
};

const refuse = (status: Refusal["status"], title: string, sentence: string): Decision => ({
  kind: "refuse",
  refusal: { status, title, sentence },
});

export class PreviewProxy implements PreviewHandler {
  readonly #parts: Parts;
  readonly #previews: LivePreviews;
  readonly #addresses: Addresses;
  readonly #strangers: RateLimit;
  readonly #public: RateLimit;
  readonly #open: OpenVisits;
  readonly #secure: boolean;
  readonly #count: (labels?: Readonly<Record<string, string>>) => void;

  constructor(parts: Parts, previews: LivePreviews, addresses: Addresses) {
    this.#parts = parts;
    this.#previews = previews;
    this.#addresses = addresses;
    this.#strangers = new RateLimit(strangerRate, parts.clock);
    this.#public = new RateLimit(publicRate, parts.clock);
    this.#open = new OpenVisits(parts.clock, parts.log);
    this.#secure = parts.config.url.protocol === "https:";
    this.#count = parts.metrics.counter("telepresence_cloud_preview_requests", "Requests to previews");
  }

  request(request: IncomingMessage, response: ServerResponse): void {
    response.on("error", () => undefined);
    this.#decideSafely(request)
      .then((decision) => {
        this.#count({ outcome: decision.kind });
        if (decision.kind === "pass") this.#pass(request, response, decision);
        else if (decision.kind === "refuse") sayPlainly(request, response, decision.refusal);
        else {
          const { location, cookies } = decision;
          const headers = {
            location,
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "content-length": 0,
          };
          response.writeHead(303, { ...headers, ...(cookies.length === 0 ? {} : { "set-cookie": [...cookies] }) });
          response.end();
        }
      })
      .catch((error: unknown) => {
        this.#logFailure(error);
        breakOff(response);
      });
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#decideSafely(request)
      .then((decision) => {
        this.#count({ outcome: decision.kind });
        if (decision.kind === "pass") this.#passUpgrade(request, socket, head, decision);
        else refuseUpgrade(socket, decision.kind === "refuse" ? decision.refusal : unauthorized.refusal);
      })
      .catch((error: unknown) => {
        this.#logFailure(error);
        socket.destroy();
      });
  }

  #pass(request: IncomingMessage, response: ServerResponse, { preview, visitor }: Decision & { kind: "pass" }): void {
    if (response.destroyed || response.closed) return;
    const startedMs = this.#parts.clock.now();
    const visit = { may: () => this.#mayStill(request), cut: () => breakOff(response) };
    if (!this.#open.hold(preview.id, visit, response)) return sayPlainly(request, response, busy);
    this.#previews.visits.note(preview.id, visitor.who, this.#parts.clock.wallMs());
    const onFailure = (error: Error): void => sayPlainly(request, response, this.#explain(error, preview));
    const onAnswer = (): void => this.#parts.traffic.note(preview.id, this.#parts.clock.now() - startedMs);
    forward(request, response, { ...this.#passage(request, preview), onFailure, onAnswer });
  }

  #passUpgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    { preview, visitor }: Decision & { kind: "pass" },
  ): void {
    if (socket.destroyed) return;
    if (request.method !== "GET" || request.headers.upgrade?.toLowerCase() !== "websocket") {
      refuseUpgrade(socket, { status: 400, title: "Bad Request", sentence: "Only WebSockets are upgraded to here." });
      return;
    }
    const visit = { may: () => this.#mayStill(request), cut: () => void socket.destroy() };
    if (!this.#open.hold(preview.id, visit, socket)) return refuseUpgrade(socket, busy);
    this.#previews.visits.note(preview.id, visitor.who, this.#parts.clock.wallMs());
    const onFailure = (error: Error): void => refuseUpgrade(socket, this.#explain(error, preview));
    forwardUpgrade(request, socket, head, { ...this.#passage(request, preview), onFailure });
  }

  #passage(request: IncomingMessage, preview: Preview): Omit<Passage, "onFailure"> {
    return {
      preview,
      connections: this.#previews.connections(preview),
      origin: this.#previews.originOf(preview.host),
      dashboard: this.#parts.config.url.href,
      address: this.#addresses.whole(request),
    };
  }

  /** Whether what let a request in still stands; another server may have changed it. */
  async #mayStill(request: IncomingMessage): Promise<boolean> {
    const preview = await this.#previews.byHost(hostOf(request));
    if (preview === undefined || preview.removedWhy !== undefined) return false;
    if (preview.access === "public" || (await this.#known(request, preview)) !== undefined) return true;
    const share = shareTokenOf(request.url ?? "");
    const { database, clock } = this.#parts;
    return share !== undefined && (await findShare(database, share, preview.id, clock.wallMs())) !== undefined;
  }

  async #decideSafely(request: IncomingMessage): Promise<Decision> {
    try {
      return await this.#decide(request);
    } catch (error) {
      this.#logFailure(error);
      return refuse(503, "Not now", "The server failed; its log says why.");
    }
  }

  #logFailure(error: unknown): void {
    this.#parts.log.error("a request to a preview failed", { error: toAppError(error).message });
  }

  async #decide(request: IncomingMessage): Promise<Decision> {
    const unfit = unfitRequest(request);
    if (unfit !== undefined) return refuse(400, "Bad Request", `The request was not understood: ${unfit}.`);
    const preview = await this.#previews.byHost(hostOf(request));
    if (preview === undefined) return this.#forStranger(request, noPreview);
    const { removedWhy } = preview;
    if (removedWhy !== undefined) return refuse(404, "This preview is gone", removedTexts[removedWhy]);
    const path = (request.url ?? "").split("?")[0];
    if (path === returnPath) return this.#enter(request, preview);
    const visitor = await this.#visitorOf(request, preview);
    if (visitor === undefined) return this.#forStranger(request, this.#admit(request, preview));
    if ("kind" in visitor) return visitor;
    if (!this.#previews.isAwake(preview)) return asleep;
    return { kind: "pass", preview, visitor };
  }

  /** Who it is; or what becomes of a share link. */
  async #visitorOf(request: IncomingMessage, preview: Preview): Promise<Visitor | Decision | undefined> {
    const share = shareTokenOf(request.url ?? "");
    const known = await this.#known(request, preview);
    if (share === undefined) return known ?? this.#publicly(request, preview);
    const isPage = isRead(request) && wantsPage(request);
    if (known !== undefined) return isPage ? { kind: "redirect", location: cleaned(request), cookies: [] } : known;
    return this.#byShare(request, preview, share);
  }

  /** A link's secret becomes a cookie and leaves the address at once; a program has no use for a cookie. */
  async #byShare(request: IncomingMessage, preview: Preview, share: string): Promise<Visitor | Decision> {
    if (!this.#strangers.tryTake(this.#addresses.counted(request))) return tooMany;
    const { database, clock } = this.#parts;
    const found = await findShare(database, share, preview.id, clock.wallMs());
    if (found === undefined) return this.#publicly(request, preview) ?? expiredLink;
    if (!isRead(request) || !wantsPage(request)) return { who: "share link" };
    const token = await visitByShare(database, found, preview.id);
    const seconds = Math.floor((found.expiresMs - clock.wallMs()) / 1000);
    return { kind: "redirect", location: cleaned(request), cookies: [this.#cookie("preview", token, seconds)] };
  }

  #publicly(request: IncomingMessage, { access }: Preview): Visitor | Decision | undefined {
    if (access !== "public") return undefined;
    return this.#public.tryTake(this.#addresses.counted(request)) ? { who: "public" } : tooMany;
  }

  async #known(request: IncomingMessage, preview: Preview): Promise<Visitor | undefined> {
    if (isNeighbours(request, this.#previews.originOf(preview.host))) return undefined;
    for (const token of cookiesNamed(request.headers.cookie, this.#cookieName("preview")).slice(0, 3)) {
      const found = await this.#previews.visitor(preview, hashToken(token), () =>
        findVisitor(this.#parts.database, token, preview, this.#parts.clock.wallMs()),
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** A person is sent to the login with something that only this browser has. */
  #admit(request: IncomingMessage, preview: Preview): Decision {
    if (!isRead(request) || !wantsPage(request) || request.headers.upgrade !== undefined) return unauthorized;
    const [known] = cookiesNamed(request.headers.cookie, this.#cookieName("entering"));
    const browser = known !== undefined && /^tpb_[\w-]{43}$/.test(known) ? known : newToken("browser");
    const location = new URL("/previews/enter", this.#parts.config.url);
    location.search = new URLSearchParams({
      preview: preview.host,
      browser: hashToken(browser),
      to: cleaned(request),
    }).toString();
    const cookies = [this.#cookie("entering", browser, enteringSeconds)];
    return { kind: "redirect", location: location.href, cookies };
  }

  /** Back from the login. */
  async #enter(request: IncomingMessage, preview: Preview): Promise<Decision> {
    if (!this.#strangers.tryTake(this.#addresses.counted(request))) return tooMany;
    const given = new URL(request.url ?? "", "http://host").searchParams;
    const to = localPath(given.get("to") ?? "/");
    const [browser = ""] = cookiesNamed(request.headers.cookie, this.#cookieName("entering"));
    const { database, clock } = this.#parts;
    const code = given.get("code") ?? "";
    const token =
      request.method === "GET"
        ? await redeemVisitCode(database, { code, previewId: preview.id, browser }, clock.wallMs())
        : undefined;
    if (token === undefined) {
      const sentence = "This way in was used already, is too old, or is another browser's.";
      return {
        kind: "refuse",
        refusal: { status: 403, title: "Once more, please", sentence, link: { href: to, text: "Open the preview" } },
      };
    }
    return {
      kind: "redirect",
      location: to,
      cookies: [this.#cookie("preview", token, visitSeconds), this.#cookie("entering", "", 0)],
    };
  }

  #forStranger(request: IncomingMessage, decision: Decision): Decision {
    return this.#strangers.tryTake(this.#addresses.counted(request)) ? decision : tooMany;
  }

  #explain(error: Error, preview: Preview): Refusal {
    if (isAppError(error, "not_found") || isAppError(error, "link_lost")) return asleep.refusal;
    this.#parts.log.info("a preview's ingress did not answer", { preview: preview.id, reason: error.message });
    const why = isAppError(error) ? formatError(error) : "it broke off";
    return { status: 502, title: "No answer", sentence: `The cluster's ingress did not answer: ${why}.` };
  }

  /** `__Host-` asks for HTTPS; plain HTTP is this machine's own, to try out. */
  #cookieName(kind: "preview" | "entering"): string {
    return `${this.#secure ? "__Host-" : ""}telepresence-${kind}`;
  }
  #cookie(kind: "preview" | "entering", value: string, seconds: number): string {
    const secure = this.#secure ? "; Secure" : "";
    return `${this.#cookieName(kind)}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax${secure}`;
  }
}

const expiredLink = refuse(403, "This link counts no more", "The share link has expired or was revoked.");
const noPreview = refuse(404, "No such preview", "There is no preview of this name.");
const busy = {
  status: 503,
  title: "Busy",
  sentence: "This preview has too many requests at once; try again.",
} as const;
const tooMany = refuse(429, "Too many requests", "There were too many requests; wait a moment and try again.");
const asleep = {
  kind: "refuse",
  refusal: {
    status: 503,
    title: "This preview sleeps",
    sentence: "This preview sleeps: its laptop or its cluster is not connected now.",
  },
} as const;
const unauthorized = {
  kind: "refuse",
  refusal: { status: 401, title: "Unauthorized", sentence: "This preview needs a login or a share link." },
} as const;

/** The label of the host; what else there could be has been refused before. */
function hostOf({ headers }: IncomingMessage): string {
  const authority = headers[":authority"];
  const host = typeof authority === "string" ? authority : (headers.host ?? "");
  return host.toLowerCase().replace(/:\d+$/, "");
}

/**
 * All previews are one site for a browser, which sends this one's cookie with what another one's page asks, and into a
 * frame of that page, where a visitor may be led to click upon what is not seen.
 */
function isNeighbours({ headers }: IncomingMessage, own: URL): boolean {
  const { origin, "sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination } = headers;
  if (origin !== undefined && origin !== "null" && origin !== own.origin) return true;
  const isVisit = mode === "navigate" && (destination === undefined || destination === "document");
  return site === "same-site" && (!isVisit || origin === "null");
}

const isRead = ({ method }: IncomingMessage): boolean => method === "GET" || method === "HEAD";
/** Without the secret of a link, and no way to another host. */
const cleaned = ({ url = "/" }: IncomingMessage): string => localPath(withoutShareToken(url));
