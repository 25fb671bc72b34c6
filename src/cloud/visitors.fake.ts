// A cloud server without a port, and browsers and programs that visit it: what tests of routes work with.
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { LiveClusters } from "./clusters/live-clusters.ts";
import type { CloudConfig } from "./config.ts";
import { parseCloudConfig } from "./config.ts";
import type { ClusterView, PreviewView } from "#wire/cloud-api.ts";
import { Traffic } from "./dashboard/traffic.ts";
import { invite } from "./identity/invites.ts";
import { createPerson, joinTeam, provideTeam } from "./identity/people.ts";
import { hashPassword } from "./identity/passwords.ts";
import { openBrowserSession } from "./identity/browser-sessions.ts";
import { createApiKey } from "./oauth/api-keys.ts";
import { dashboardSources } from "./dashboard/snapshot.ts";
import { LivePreviews } from "./previews/live-previews.ts";
import { Visits } from "./previews/visits.ts";
import type { Database } from "./storage/database.ts";
import { openMemoryDatabase } from "./storage/open-memory.fake.ts";
import { signingKey } from "./storage/settings.ts";
import type { App } from "./web/app.ts";
import { buildApp } from "./web/app.ts";
import { Metrics } from "./web/metrics.ts";
import type { Parts, Route } from "./web/route.ts";
import { allRoutes } from "./web/routes.ts";

/** Tests log in a hundred times. */
const cheap = { memory: 8, passes: 1, parallelism: 1 };

export class FakeCloud implements AsyncDisposable {
  readonly parts: Parts;
  readonly routes: readonly Route[];
  readonly app: App;
  readonly clock: FakeClock;
  /** What the dashboard shows, where that is not to be what there is. */
  clusters: readonly ClusterView[] | undefined;
  previews: readonly PreviewView[] | undefined;

  private constructor(parts: Parts, clock: FakeClock) {
    this.parts = parts;
    this.clock = clock;
    const real = dashboardSources(parts);
    this.routes = allRoutes(parts, {
      isServing: () => true,
      ending: new AbortController().signal,
      sources: {
        clusters: async (person) => this.clusters ?? (await real.clusters(person)),
        previews: async (person) => this.previews ?? (await real.previews(person)),
      },
      files: { read: (file) => Buffer.from(file) },
    });
    this.app = buildApp(parts, this.routes, (context) => context.req.header("x-test-address") ?? "192.0.2.1");
  }

  static async open(change: Partial<CloudConfig> = {}, database?: Database): Promise<FakeCloud> {
    const clock = new FakeClock();
    const config = { ...parseCloudConfig(["serve"], () => undefined, { HOME: "/nowhere" }), ...change };
    const opened = database ?? (await openMemoryDatabase());
    const key = await signingKey(opened);
    const [log, metrics, traffic] = [silentLogger, new Metrics(), new Traffic(clock)];
    const live = new LiveClusters({ database: opened, clock, log });
    const previews = new LivePreviews({ config, database: opened, live, visits: new Visits(), clock, log });
    return new FakeCloud({ config, clock, log, database: opened, metrics, traffic, live, previews, key }, clock);
  }

  get database(): Database {
    return this.parts.database;
  }
  get origin(): string {
    return this.parts.config.url.origin;
  }

  /** With `password: true` the password is "password of NAME", which is checked for less than it would cost outside. */
  async person(name: string, { team = "everyone", admin = false, password = false } = {}): Promise<string> {
    const nowMs = this.clock.wallMs();
    const hashed = password ? { password: await hashPassword(`password of ${name}`, cheap) } : {};
    const id = await createPerson(this.database, { issuer: "", subject: name, name, admin, ...hashed }, nowMs);
    await joinTeam(this.database, id, (await provideTeam(this.database, team, nowMs)).id);
    return id;
  }

  async invite(admin = false): Promise<string> {
    const host = await this.person("host", { admin: true });
    return invite(this.database, { teamId: undefined, admin }, host, this.clock.wallMs());
  }

  browser(): FakeBrowser {
    return new FakeBrowser(this);
  }

  /** A browser in which this person is logged in. */
  async browserOf(personId: string): Promise<FakeBrowser> {
    const browser = this.browser();
    const token = await openBrowserSession(this.database, personId, this.clock.wallMs());
    browser.cookies.set("telepresence-session", token);
    return browser;
  }

  keyOf(personId: string): Promise<string> {
    return createApiKey(this.database, personId, "test", this.clock.wallMs());
  }

  /** A program: no cookies. */
  async ask(path: string, init: RequestInit = {}): Promise<Response> {
    return this.app.request(`${this.origin}${path}`, init);
  }
  post(path: string, fields: Readonly<Record<string, string>>): Promise<Response> {
    return this.ask(path, { method: "POST", body: new URLSearchParams(fields) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.parts.live[Symbol.asyncDispose]();
    await this.database[Symbol.asyncDispose]();
  }
}

/** Keeps cookies, and sends a form with what the page had hidden in it. */
export class FakeBrowser {
  readonly cookies = new Map<string, string>();
  readonly #cloud: FakeCloud;

  constructor(cloud: FakeCloud) {
    this.#cloud = cloud;
  }

  async get(path: string): Promise<FakePage> {
    return this.#send(path, { headers: { accept: "text/html" } });
  }

  async post(
    path: string,
    fields: Readonly<Record<string, string>>,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<FakePage> {
    const body = new URLSearchParams(fields);
    return this.#send(path, {
      method: "POST",
      body,
      headers: { accept: "text/html", origin: this.#cloud.origin, ...headers },
    });
  }

  /** What a page's script sends. */
  async call(
    method: string,
    path: string,
    {
      body,
      csrf,
      origin = this.#cloud.origin,
    }: { readonly body?: unknown; readonly csrf: string; readonly origin?: string },
  ): Promise<FakePage> {
    const headers = { "content-type": "application/json", "x-csrf-token": csrf, origin };
    return this.#send(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  }

  /** Opens the page and sends its form that goes to `action`. */
  async submit(path: string, fields: Readonly<Record<string, string>>, action = path): Promise<FakePage> {
    const found = await this.get(path);
    return this.post(action, { ...found.hidden, ...fields });
  }

  async #send(
    path: string,
    { headers, ...init }: Omit<RequestInit, "headers"> & { readonly headers: Record<string, string> },
  ): Promise<FakePage> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await this.#cloud.app.request(`${this.#cloud.origin}${path}`, {
      ...init,
      headers: { ...headers, ...(cookie === "" ? {} : { cookie }) },
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (/max-age=0/i.test(line)) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return new FakePage(response, await response.text());
  }
}

export class FakePage {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Hidden fields of all its forms. */
  readonly hidden: Readonly<Record<string, string>>;

  constructor(response: Response, text: string) {
    this.status = response.status;
    this.headers = response.headers;
    this.text = text;
    const fields = [...text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)];
    this.hidden = Object.fromEntries(fields.map(([, name = "", value = ""]) => [name, value.replaceAll("&amp;", "&")]));
  }

  get location(): string | undefined {
    return this.headers.get("location") ?? undefined;
  }
}
