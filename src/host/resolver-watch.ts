// The host's resolver may become another while we are connected: another network, a VPN, an edited file. Whoever writes
// resolv.conf replaces the file, its content or the symbolic link, so the folders are watched, of the link and of what
// it leads to. What counts is what comes out of it: many writes change nothing.
import { watch, type FSWatcher } from "node:fs";
import { realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Clock, Timer } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { detectResolver, systemFiles } from "./resolver.ts";
import type { HostResolver, ResolverFiles } from "./resolver.ts";

/** chosen: a file is emptied, written and renamed within milliseconds. */
const settleMs = 250;

export interface ResolverWatchOptions {
  readonly known: HostResolver;
  readonly onChange: (resolver: HostResolver) => void;
  readonly clock: Clock;
  readonly log: Logger;
  /** The system's but in tests. */
  readonly files?: ResolverFiles;
}

export class ResolverWatch implements Disposable {
  readonly #options: ResolverWatchOptions;
  readonly #files: ResolverFiles;
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #ended = new AbortController();
  #known: string;
  #settling: Timer | undefined;
  #looking: Promise<void>;

  constructor(options: ResolverWatchOptions) {
    this.#options = options;
    this.#files = options.files ?? systemFiles;
    this.#known = JSON.stringify(options.known);
    this.#looking = this.#look(); // it may have changed since it was found
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#settling?.[Symbol.dispose]();
    for (const folder of this.#watchers.keys()) this.#unwatch(folder);
  }

  /** Something has changed that may go with another resolver. */
  recheck(): void {
    if (this.#ended.signal.aborted) return;
    this.#settling?.[Symbol.dispose]();
    this.#settling = this.#options.clock.after(settleMs, () => {
      this.#looking = this.#looking.then(() => this.#look());
    });
    this.#settling.unref();
  }

  async #look(): Promise<void> {
    const { clock, log, onChange } = this.#options;
    const { signal } = this.#ended;
    try {
      await this.#watchFolders();
      const found = await detectResolver(clock, signal, this.#files);
      const text = JSON.stringify(found);
      if (signal.aborted || text === this.#known) return;
      this.#known = text;
      log.info("the host's resolver has changed", { ...found });
      onChange(found);
    } catch (error) {
      if (!signal.aborted) log.warn("the host's resolver could not be read again", { error: String(error) });
    }
  }

  /** Those of today's files: a symbolic link may lead elsewhere than before. */
  async #watchFolders(): Promise<void> {
    const paths = Object.values(this.#files) as readonly string[];
    const real = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
    const folders = new Set([...paths, ...real].map((path) => dirname(path)));
    if (this.#ended.signal.aborted) return;
    for (const folder of this.#watchers.keys()) if (!folders.has(folder)) this.#unwatch(folder);
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#watch(folder);
  }

  #unwatch(folder: string): void {
    this.#watchers.get(folder)?.close();
    this.#watchers.delete(folder);
  }

  /** A folder that is not there, or may not be watched, is left out: news of the network has us look, too. */
  #watch(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, (_, name) => {
        if (name === basename(folder)) this.#unwatch(folder); // the folder itself is gone
        if (name === null || name.startsWith("resolv.conf")) this.recheck();
      });
      watcher.on("error", () => this.#unwatch(folder));
      this.#watchers.set(folder, watcher);
    } catch (error) {
      this.#options.log.debug("folder not watched", { folder, error: String(error) });
    }
  }
}
