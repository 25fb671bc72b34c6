// Lays down what an archive from a pod holds, below one folder and nowhere else, whatever the archive says: no absolute
// names, no `..`, nothing through a link, no devices, no set-uid. Files are the user's alone. A link stays only where it
// cannot lead out: `..` at its beginning, no deeper than it lies.
import { link, lstat, mkdir, open, rm, symlink, type FileHandle } from "node:fs/promises";
import { join, posix } from "node:path";
import { cannotWrite, modeOf } from "./atomic-folder.ts";

export interface ArchiveEntry {
  readonly kind: "file" | "folder" | "symlink" | "hardlink" | "other";
  readonly name: string;
  readonly link: string;
  readonly mode: number;
}

export interface UnpackOptions {
  /** What the archive is of: its first name; that of a lone file as well. */
  readonly target: string;
  /** Where the archive's folder is in the pod, for links that name it. */
  readonly mountPath: string;
  /** Paths inside it that belong to others. */
  readonly covered: ReadonlySet<string>;
}

export class Unpacker implements AsyncDisposable {
  readonly #options: UnpackOptions;
  /** Real folders that we have made or found; "" is the target itself. */
  readonly #folders = new Set<string>();
  readonly #files = new Set<string>();
  #open: FileHandle | undefined;
  #skipped = 0;

  constructor(options: UnpackOptions) {
    this.#options = options;
  }

  /** Entries that were not laid down. */
  get skipped(): number {
    return this.#skipped;
  }
  get files(): number {
    return this.#files.size;
  }

  async entry(entry: ArchiveEntry): Promise<void> {
    await this.#finishFile();
    const path = innerPath(entry.name);
    if (path === undefined) this.#skipped += 1;
    else if (!this.#isCovered(path) && !(await this.#lay(entry, path))) this.#skipped += 1;
  }

  /** Content of the entry before. */
  async data(data: Buffer): Promise<void> {
    try {
      await this.#open?.writeFile(data);
    } catch (cause) {
      throw cannotWrite(this.#options.target, cause);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#finishFile();
  }

  async #finishFile(): Promise<void> {
    const file = this.#open;
    this.#open = undefined;
    await file?.close();
  }

  #isCovered(path: string): boolean {
    return [...this.#options.covered].some((other) => path === other || path.startsWith(`${other}/`));
  }

  /** False when it has no place here. */
  async #lay(entry: ArchiveEntry, path: string): Promise<boolean> {
    if (entry.kind === "other") return false;
    if (entry.kind === "folder") return await this.#folder(path);
    const parent = posix.dirname(path);
    if (path !== "" && !(await this.#folder(parent === "." ? "" : parent))) return false;
    if (this.#folders.has(path)) return false;
    const whole = join(this.#options.target, path);
    if (entry.kind === "file") {
      await rm(whole, { force: true });
      this.#open = await open(whole, "wx", modeOf((entry.mode & 0o111) !== 0));
      this.#files.add(path);
      return true;
    }
    return entry.kind === "symlink" ? await this.#symlink(entry.link, path) : await this.#hardlink(entry.link, path);
  }

  async #folder(path: string): Promise<boolean> {
    if (this.#folders.has(path)) return true;
    const parent = posix.dirname(path);
    if (path !== "" && !(await this.#folder(parent === "." ? "" : parent))) return false;
    const whole = join(this.#options.target, path);
    try {
      await mkdir(whole, { mode: 0o700, recursive: path === "" });
    } catch {
      if (!(await lstat(whole)).isDirectory()) return false; // a link or a file of that name came before
    }
    this.#folders.add(path);
    return true;
  }

  async #symlink(target: string, path: string): Promise<boolean> {
    const safe = safeLink(target, path, this.#options.mountPath);
    if (safe === undefined || path === "") return false;
    const whole = join(this.#options.target, path);
    await rm(whole, { force: true });
    await symlink(safe, whole);
    this.#files.delete(path);
    return true;
  }

  async #hardlink(target: string, path: string): Promise<boolean> {
    const first = innerPath(target);
    if (first === undefined || !this.#files.has(first) || first === path) return false;
    const whole = join(this.#options.target, path);
    await rm(whole, { force: true });
    await link(join(this.#options.target, first), whole);
    this.#files.add(path);
    return true;
  }
}

/** The path below the archive's first name; undefined for one that is not below it. */
function innerPath(name: string): string | undefined {
  if (name.startsWith("/") || name.includes("\0")) return undefined;
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.length === 0 || parts.includes("..")) return undefined;
  return parts.slice(1).join("/");
}

/** Undefined where it might lead out. By induction: each link lies in a real folder, and climbs no higher than that. */
function safeLink(target: string, path: string, mountPath: string): string | undefined {
  const depth = path.split("/").length - 1;
  const inside = target.startsWith(`${mountPath}/`)
    ? `${"../".repeat(depth)}${target.slice(mountPath.length + 1)}`
    : target;
  if (inside === "" || inside.startsWith("/") || inside.includes("\0")) return undefined;
  const parts = inside.split("/").filter((part) => part !== "" && part !== ".");
  const climbs = parts.findIndex((part) => part !== "..");
  const first = climbs < 0 ? parts.length : climbs;
  if (first > depth || parts.slice(first).includes("..")) return undefined;
  return inside;
}
