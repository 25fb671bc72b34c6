// A cloud server on loopback, a manager, and a laptop that is logged in: all that a preview needs but a cluster. The
// manager reaches the server through the laptop, as with a server to try out.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { request } from "node:http";
import type { Agent } from "node:http";
import type { IncomingMessage } from "node:http";
import { request as requestSecurely } from "node:https";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import type { Clock } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { Cloud } from "#cloud/cloud.ts";
import { startCloud } from "#cloud/cloud.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import { openBrowserSession } from "#cloud/identity/browser-sessions.ts";
import { createPerson, joinTeam, provideTeam } from "#cloud/identity/people.ts";
import { openLogin } from "#cloud/oauth/logins.ts";
import type { Database } from "#cloud/storage/database.ts";
import { openDatabase } from "#cloud/storage/open.ts";
import type { Manager } from "#manager/manager.ts";
import { TestLaptop, anything, never, testManager, workload } from "#test/flow/manager/harness.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { clusterList, previewView, registerClusterAnswer } from "#wire/cloud-api.ts";
import type { ClusterView, CreatePreviewRequest, PreviewView, RegisterClusterAnswer } from "#wire/cloud-api.ts";

export const clusterId = "0e5e5b1c-uid";

/** A person's laptop login. */
export interface LoggedIn {
  readonly personId: string;
  readonly token: string;
  readonly refreshToken: string;
}

interface ApiAnswer {
  readonly status: number;
  readonly json: () => Promise<unknown>;
}

interface Visit {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Keeps connections, for many requests without TLS; each has its own when left out. */
  readonly agent?: Agent;
}

export interface Visited {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** `name=value` of a cookie that was set; "" when it was not. */
export function cookieOf({ headers }: Visited, name: string): string {
  const found = headers["set-cookie"]?.find((cookie) => cookie.startsWith(`${name}=`));
  return found?.split(";")[0] ?? "";
}

interface LabWish {
  readonly tls?: boolean;
  readonly proxied?: boolean;
  readonly clock?: Clock;
  /** As `--database` has it; a SQLite file of its own when left out. */
  readonly database?: string;
  readonly onFailed?: (error: AppError) => void;
}

const neverFails = (error: AppError): void => {
  throw error;
};

export class PreviewLab implements AsyncDisposable {
  readonly cloud: Cloud;
  readonly manager: Manager;
  readonly database: Database;
  readonly url: string;
  /** Of the server, when it speaks TLS. */
  readonly certificate: string | undefined;
  readonly #stack: AsyncDisposableStack;
  #previews = 0;

  private constructor(parts: {
    readonly cloud: Cloud;
    readonly manager: Manager;
    readonly database: Database;
    readonly certificate: string | undefined;
    readonly stack: AsyncDisposableStack;
  }) {
    this.cloud = parts.cloud;
    this.manager = parts.manager;
    this.database = parts.database;
    this.certificate = parts.certificate;
    const place = parts.certificate === undefined ? "http://localhost" : "https://cloud.test";
    this.url = `${place}:${parts.cloud.port}`;
    this.#stack = parts.stack;
  }

  /**
   * With `tls` the server has a name and a certificate of its own, speaks HTTP/2, and the manager goes straight to it. With
   * `proxied` it believes X-Forwarded-For, so that visitors may have addresses.
   */
  static async open({ tls = false, proxied = false, clock = systemClock, ...more }: LabWish = {}): Promise<PreviewLab> {
    await using stack = new AsyncDisposableStack();
    const folder = mkdtempSync(join(tmpdir(), "telepresence-previews-"));
    stack.defer(() => rmSync(folder, { recursive: true, force: true }));
    const { database: address = `sqlite:${join(folder, "cloud.sqlite")}`, onFailed = neverFails } = more;
    const words = ["serve", "--listen", "127.0.0.1:0", "--database", address];
    if (proxied) words.push("--trusted-proxies", "127.0.0.0/8");
    const { certificatePem, privateKeyPem } = createIdentity("cloud.test");
    if (tls) {
      words.push("--url", "https://cloud.test:0", "--preview-domain", "preview.test");
      writeFileSync(join(folder, "cert.pem"), certificatePem);
      writeFileSync(join(folder, "key.pem"), privateKeyPem);
      words.push("--tls-cert", join(folder, "cert.pem"), "--tls-key", join(folder, "key.pem"));
    }
    const config = parseCloudConfig(words, () => undefined, {});
    const cloud = stack.use(await startCloud({ config, clock, log: silentLogger, onFailed }));
    const database = stack.use(await openDatabase(config.database, { clock: systemClock, log: silentLogger }));
    const manager = stack.use(
      await testManager({
        guard: anything,
        lookup: (host) => Promise.resolve(host === "nowhere.shop" ? [] : ["127.0.0.1"]),
      }),
    );
    const certificate = tls ? certificatePem : undefined;
    return new PreviewLab({ cloud, manager, database, certificate, stack: stack.move() });
  }

  async person(name: string, team = "ours", admin = false): Promise<LoggedIn> {
    const nowMs = systemClock.wallMs();
    const personId = await createPerson(this.database, { issuer: "", subject: name, name, admin }, nowMs);
    await joinTeam(this.database, personId, (await provideTeam(this.database, team, nowMs)).id);
    const login = await openLogin(this.database, { personId, device: "laptop" }, nowMs);
    return { personId, token: login.access_token, refreshToken: login.refresh_token };
  }

  /** A laptop that stands between the manager and the cloud server. */
  async laptop(client = "ada@laptop"): Promise<TestLaptop> {
    const laptop = this.#stack.use(await TestLaptop.connect(this.manager, client));
    laptop.onIncoming = (incoming) => {
      if (incoming.request.kind !== "cloud") return incoming.reject("unsupported", "only to the cloud server");
      const socket = connect({ port: this.cloud.port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
      socket.once("connect", () => joinDuplex(incoming.accept(), socket));
    };
    return laptop;
  }

  async api(who: LoggedIn, method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const content = body === undefined ? "" : JSON.stringify(body);
    const { status, body: answered } = await this.#ask(path, {
      host: new URL(this.url).host,
      method,
      headers: {
        authorization: `Bearer ${who.token}`,
        ...(body === undefined ? {} : { "content-type": "application/json", "content-length": String(content.length) }),
      },
      body: content,
    });
    return { status, json: () => Promise.resolve(JSON.parse(answered) as unknown) };
  }

  async #ask(
    path: string,
    { host, method, headers, body, agent }: Visit & { readonly host: string },
  ): Promise<Visited> {
    const options = { host: "127.0.0.1", port: this.cloud.port, path, method, agent: agent ?? false };
    const sent =
      this.certificate === undefined
        ? request({ ...options, headers: { host, ...headers } })
        : requestSecurely({ ...options, headers: { host, ...headers }, rejectUnauthorized: false });
    sent.end(body);
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await text(answer) };
  }

  async register(who: LoggedIn): Promise<RegisterClusterAnswer> {
    const answer = await this.api(who, "POST", "/api/clusters", { id: clusterId, name: "kind" });
    return registerClusterAnswer.parse(await answer.json());
  }

  /** Registers the cluster and has the manager join; resolves when the tunnel stands. */
  async join(laptop: TestLaptop, who: LoggedIn): Promise<RegisterClusterAnswer> {
    const registered = await this.register(who);
    const { team, token } = registered;
    const states: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    using _listening = laptop.rpc.onNotification("cloud.changed", ({ state }) => {
      states.push(state);
      if (state !== "connecting") resolve();
    });
    const ca = this.certificate === undefined ? {} : { caCertificates: [this.certificate] };
    const wish = { url: this.url, clusterId, team: team.id, token, ...ca };
    const { state } = await laptop.rpc.call("cloud.join", wish, never);
    if (state === "connecting") await promise;
    return registered;
  }

  async clusters(who: LoggedIn): Promise<readonly ClusterView[]> {
    return clusterList.parse(await (await this.api(who, "GET", "/api/clusters")).json()).clusters;
  }

  /** Asks until it is so: reports come when they come. */
  async until<T>(ask: () => Promise<T>, isSo: (found: T) => boolean): Promise<T> {
    for (;;) {
      const found = await ask();
      if (isSo(found)) return found;
      await systemClock.sleep(20, never);
    }
  }

  /** An intercept with a preview that leads to this port of loopback. */
  async preview(
    laptop: TestLaptop,
    who: LoggedIn,
    { port, ...wish }: Partial<CreatePreviewRequest> & { readonly port: number },
  ): Promise<PreviewView> {
    const name = `hello-${++this.#previews}`;
    const intercept = await laptop.intercept(name, 10_000 + this.#previews);
    const ingress = { host: "ingress.shop", port, tls: false, l5host: "hello.example.com" };
    const answer = await this.api(who, "POST", "/api/previews", {
      clusterId,
      interceptId: intercept.id,
      intercept: "hello",
      workload: { ...workload, name },
      ingress,
      banner: false,
      ...wish,
    });
    const preview = previewView.parse(await answer.json());
    const put = { previewId: preview.id, interceptId: intercept.id, ingress: { host: ingress.host, port } };
    await laptop.rpc.call("preview.put", put, never);
    return preview;
  }

  /** One request as a visitor sends it; a browser's as long as `accept` is not said otherwise. */
  async visit(
    { host }: Pick<PreviewView, "host">,
    path = "/",
    { method = "GET", headers = {}, body = "", ...more }: Visit = {},
  ): Promise<Visited> {
    const named = `${host}:${this.cloud.port}`;
    return this.#ask(path, { host: named, method, headers: { accept: "text/html", ...headers }, body, ...more });
  }

  /** A browser that is logged in as this person. */
  async session(who: LoggedIn): Promise<string> {
    const prefix = this.certificate === undefined ? "" : "__Host-";
    return `${prefix}telepresence-session=${await openBrowserSession(this.database, who.personId, systemClock.wallMs())}`;
  }

  /** From the preview's host to the login and back, as a browser goes; the cookie of the visit. */
  async enter(preview: Pick<PreviewView, "host">, session: string, path = "/"): Promise<string> {
    const away = await this.visit(preview, path);
    const prefix = this.certificate === undefined ? "" : "__Host-";
    const entering = cookieOf(away, `${prefix}telepresence-entering`);
    const back = await this.visitBack(away, session);
    const inside = await this.visit(preview, back, { headers: { cookie: entering } });
    return cookieOf(inside, `${prefix}telepresence-preview`);
  }

  /** A page of the main host. */
  ask(address: string, session: string): Promise<Visited> {
    const { host, pathname, search } = new URL(address);
    return this.#ask(pathname + search, { host, headers: { cookie: session, accept: "text/html" } });
  }

  /** The path with the code, from the page at the main host. */
  async visitBack(away: Visited, session: string): Promise<string> {
    const page = await this.ask(away.headers.location ?? "", session);
    const target = /url=(.*)$/.exec(String(page.headers["refresh"]))?.[1];
    if (target === undefined) throw new Error(`no way back: ${page.status}`);
    const { pathname, search } = new URL(target);
    return pathname + search;
  }

  interceptsOf(who: LoggedIn): Promise<ClusterView["intercepts"]> {
    return this.clusters(who).then((clusters) => clusters.flatMap(({ intercepts }) => intercepts));
  }

  intercept(laptop: TestLaptop, name = "hello"): Promise<InterceptInfo> {
    return laptop.intercept(name, 8080);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}
