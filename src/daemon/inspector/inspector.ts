// The inspector of one session: nothing until somebody looks, by a page on the loopback or through a cloud server. Then
// it records; when nobody has looked for a while it stops and forgets.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { InspectedIntercept } from "#wire/inspector-api.ts";
import type { Origin, Route } from "./exchange.ts";
import { Recorder } from "./recorder.ts";
import { Redaction } from "./redaction.ts";
import type { CallsOptions } from "./calls.ts";
import { InspectorServer } from "./server.ts";
import type { Asset } from "./server.ts";
import { TeamInspector } from "./team-inspector.ts";

export interface InspectorSources {
  /** Where the page's files lie; beside the program but in tests. */
  readonly pageFolder: string | undefined;
  readonly intercepts: () => { readonly intercepts: readonly InspectedIntercept[]; readonly connected: boolean };
  readonly dial: (route: Route, to: Origin["answeredBy"], signal: AbortSignal) => Promise<Duplex>;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface InspectorAddress {
  /** For people: who has it sees everything. */
  readonly url: string;
  /** For a browser that is started, where that is safe. */
  readonly openUrl?: string;
}

function addressOf(server: InspectorServer): InspectorAddress {
  const openUrl = server.newOpenUrl();
  return { url: server.url, ...(openUrl === undefined ? {} : { openUrl }) };
}

/** scripts/build.ts lays it there. */
const besideProgram = join(import.meta.dirname, "page");
/** chosen: a page that was closed by mistake finds everything again. */
const forgetMs = 600_000;
const lookMs = 10_000;

export class Inspector implements AsyncDisposable {
  readonly recorder: Recorder;
  readonly #sources: InspectorSources;
  readonly #redaction = new Redaction([]);
  #server: InspectorServer | undefined;
  #shared: TeamInspector | undefined;
  #looking: Disposable | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(sources: InspectorSources) {
    this.#sources = sources;
    this.recorder = new Recorder(sources.clock);
  }

  /** One that is open already stays, and hides these as well. */
  open(hide: readonly string[]): Promise<InspectorAddress> {
    const opening = this.#last.then(() => this.#openOnce(hide));
    this.#last = opening.catch(() => undefined);
    return opening;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#close();
  }

  /** A cloud server's stream, for team mates: false when too many look already. Takes it over otherwise. */
  share(accept: () => Duplex, intercept: string): boolean {
    this.#shared ??= new TeamInspector(this.#callsOptions());
    if (this.#shared.isFull) return false;
    this.#start();
    this.#shared.serve(accept(), intercept);
    return true;
  }

  /** Of these alone somebody else may see the requests. */
  shareOnly(intercepts: ReadonlySet<string>): void {
    this.#shared?.keepOnly(intercepts);
  }

  async #openOnce(hide: readonly string[]): Promise<InspectorAddress> {
    this.#redaction.hide(hide);
    if (this.#server !== undefined) return addressOf(this.#server);
    const { pageFolder = besideProgram, log } = this.#sources;
    const assets = await readAssets(pageFolder);
    this.#server = await InspectorServer.open({ ...this.#callsOptions(), assets, log });
    this.#start();
    return addressOf(this.#server);
  }

  #callsOptions(): CallsOptions {
    const { intercepts, dial, clock } = this.#sources;
    const { recorder } = this;
    return { recorder, replayedTo: recorder, redaction: this.#redaction, intercepts, dial, clock };
  }

  #start(): void {
    if (this.#looking !== undefined) return;
    this.recorder.start();
    const { clock, log } = this.#sources;
    let seenAt = clock.now();
    this.#looking = clock.every(lookMs, () => {
      if ((this.#server?.pages ?? 0) + (this.#shared?.pages ?? 0) > 0) seenAt = clock.now();
      if (clock.now() - seenAt < forgetMs) return;
      log.info("nobody looks at the inspector any more");
      void this.#close();
    });
  }

  async #close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.recorder.stop();
    this.#looking?.[Symbol.dispose]();
    this.#looking = undefined;
    this.#shared?.[Symbol.dispose]();
    this.#shared = undefined;
    await server?.[Symbol.asyncDispose]();
  }
}

const files: readonly (readonly [path: string, file: string, type: string])[] = [
  ["/", "index.html", "text/html; charset=utf-8"],
  ["/app.js", "app.js", "text/javascript; charset=utf-8"],
  ["/app.css", "app.css", "text/css; charset=utf-8"],
];

async function readAssets(folder: string): Promise<ReadonlyMap<string, Asset>> {
  try {
    const read = files.map(
      async ([path, file, type]) => [path, { type, body: await readFile(join(folder, file)) }] as const,
    );
    return new Map(await Promise.all(read));
  } catch (cause) {
    const hint = "build it with `npm run build`, or install Telepresence again";
    throw new AppError("unsupported", `the dashboard's page is not in ${folder}`, { cause, hint });
  }
}
