// The inspector of one session: nothing until a page is asked for, then a recorder and a server on the loopback. Without
// a page for a while it stops and forgets.
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
import { InspectorServer } from "./server.ts";
import type { Asset } from "./server.ts";

export interface InspectorSources {
  /** Where the page's files lie; beside the program but in tests. */
  readonly pageFolder: string | undefined;
  readonly intercepts: () => { readonly intercepts: readonly InspectedIntercept[]; readonly connected: boolean };
  readonly dial: (route: Route, to: Origin["answeredBy"], signal: AbortSignal) => Promise<Duplex>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** scripts/build.ts lays it there. */
const besideProgram = join(import.meta.dirname, "page");
/** chosen: a page that was closed by mistake finds everything again. */
const forgetMs = 600_000;
const lookMs = 10_000;

export class Inspector implements AsyncDisposable {
  readonly recorder: Recorder;
  readonly #sources: InspectorSources;
  #open: { readonly server: InspectorServer; readonly redaction: Redaction; readonly looking: Disposable } | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(sources: InspectorSources) {
    this.#sources = sources;
    this.recorder = new Recorder(sources.clock);
  }

  /** The page's address. One that is open already stays, and hides these as well. */
  open(hide: readonly string[]): Promise<string> {
    const opening = this.#last.then(() => this.#openOnce(hide));
    this.#last = opening.catch(() => undefined);
    return opening;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#close();
  }

  async #openOnce(hide: readonly string[]): Promise<string> {
    if (this.#open !== undefined) {
      this.#open.redaction.hide(hide);
      return this.#open.server.url;
    }
    const { pageFolder = besideProgram, intercepts, dial, clock } = this.#sources;
    const assets = await readAssets(pageFolder);
    const redaction = new Redaction(hide);
    const server = await InspectorServer.open({ recorder: this.recorder, redaction, assets, intercepts, dial, clock });
    this.recorder.start();
    this.#open = { server, redaction, looking: this.#closeWhenForgotten(server) };
    return server.url;
  }

  #closeWhenForgotten(server: InspectorServer): Disposable {
    const { clock, log } = this.#sources;
    let seenAt = clock.now();
    return clock.every(lookMs, () => {
      if (server.pages > 0) seenAt = clock.now();
      if (clock.now() - seenAt < forgetMs) return;
      log.info("nobody looks at the inspector any more");
      void this.#close();
    });
  }

  async #close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    this.recorder.stop();
    open?.looking[Symbol.dispose]();
    await open?.server[Symbol.asyncDispose]();
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
