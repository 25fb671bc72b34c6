// A folder of files that change together, laid out as a kubelet does: names are links into `..data`, which is a link to
// the folder of the present version. Who reads sees one version or the next, never half of it.
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";

export interface FileContent {
  readonly data: Buffer;
  readonly executable: boolean;
}

export type FolderContent = ReadonlyMap<string, FileContent>;

const dataLink = "..data";
const nextLink = "..data_next";

export class AtomicFolder {
  readonly #path: string;
  /** Names in it that are somebody else's: another volume is mounted there. */
  readonly #covered: ReadonlySet<string>;
  #version = 0;
  #digest: string | undefined;

  constructor(path: string, covered: ReadonlySet<string> = new Set()) {
    this.#path = path;
    this.#covered = covered;
  }

  /** False when nothing has changed. One call at a time. */
  async write(content: FolderContent): Promise<boolean> {
    const digest = digestOf(content);
    if (digest === this.#digest) return false;
    for (const path of content.keys()) checkPath(path);
    const folder = versionName(this.#version + 1);
    try {
      await this.#lay(folder, content);
    } catch (error) {
      await rm(join(this.#path, folder), { recursive: true, force: true });
      throw cannotWrite(this.#path, error);
    }
    await rename(join(this.#path, nextLink), join(this.#path, dataLink));
    const previous = this.#version++;
    this.#digest = digest;
    await this.#link(new Set([...content.keys()].map((path) => path.split("/")[0] ?? "")));
    if (previous > 0) await rm(join(this.#path, versionName(previous)), { recursive: true, force: true });
    return true;
  }

  /** All of it, beside what readers see. */
  async #lay(folder: string, content: FolderContent): Promise<void> {
    await mkdir(join(this.#path, folder), { recursive: true, mode: 0o700 });
    for (const [path, file] of content) await this.#writeFile(join(folder, path), file);
    await rm(join(this.#path, nextLink), { force: true });
    await symlink(folder, join(this.#path, nextLink));
  }

  async #writeFile(path: string, { data, executable }: FileContent): Promise<void> {
    const whole = join(this.#path, path);
    await mkdir(dirname(whole), { recursive: true, mode: 0o700 });
    await writeFile(whole, data, { mode: modeOf(executable), flag: "wx" });
  }

  /** Names of the new version come, then those of the old one go. */
  async #link(wanted: ReadonlySet<string>): Promise<void> {
    const present = new Set((await readdir(this.#path)).filter((name) => !name.startsWith("..")));
    for (const name of wanted) {
      if (!present.has(name) && !this.#covered.has(name)) await symlink(join(dataLink, name), join(this.#path, name));
    }
    for (const name of present) {
      if (!wanted.has(name) && !this.#covered.has(name)) await rm(join(this.#path, name), { force: true });
    }
  }
}

const versionName = (number: number): string => `..version_${number}`;

/** Of files with a pod's content: nobody else's to read. */
export const modeOf = (executable: boolean): number => (executable ? 0o700 : 0o600);

export const cannotWrite = (path: string, cause: unknown, hint = "choose another place with --mount"): AppError =>
  new AppError("command_failed", `${path} cannot be written: ${describeFileError(cause)}`, { cause, hint });

/** chosen: a draft this much older than one's own is of a process that was killed. */
const abandonedMs = 60_000;

/** One file in place of another: a reader sees the old one or the new one, however many write it at once. */
export async function replaceFile(path: string, { data, executable }: FileContent, hint?: string): Promise<void> {
  const folder = dirname(path);
  const prefix = `..new_${createHash("sha256").update(path).digest("hex").slice(0, 16)}`;
  const draft = join(folder, `${prefix}_${randomBytes(6).toString("hex")}`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFile(draft, data, { mode: modeOf(executable), flag: "wx" });
    await forgetAbandoned(folder, prefix, (await stat(draft)).mtimeMs);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined); // why it failed is told below
    throw cannotWrite(path, error, hint);
  }
}

/** Drafts hold what the file holds, a secret for one. */
async function forgetAbandoned(folder: string, prefix: string, nowMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(prefix)) continue;
    const { mtimeMs } = await stat(join(folder, name)).catch(() => ({ mtimeMs: nowMs })); // has its place by now
    if (nowMs - mtimeMs > abandonedMs) await rm(join(folder, name), { force: true });
  }
}

/** What a cluster names is checked before it becomes a path. */
function checkPath(path: string): void {
  const parts = path.split("/");
  const bad = parts.some((part) => part === "" || part === "." || part === "..");
  if (!bad && !path.startsWith("..") && !path.includes("\0")) return;
  throw new AppError("protocol", `a volume has a file ${JSON.stringify(path)}, expected a path inside it`);
}

function digestOf(content: FolderContent): string {
  const hash = createHash("sha256");
  const sorted = [...content].toSorted(([a], [b]) => (a < b ? -1 : 1));
  for (const [path, { data, executable }] of sorted) {
    hash.update(`${JSON.stringify(path)} ${data.length} ${executable}\n`).update(data);
  }
  return hash.digest("hex");
}
