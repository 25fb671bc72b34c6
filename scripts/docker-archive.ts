// Writes a container image as a docker-archive tar (manifest.json, config, one tar a layer), which `ctr images import`
// and `docker load` read. No registry and no Docker are needed to make one.
// Invariant: the same files give the same bytes: entries are sorted, owned by root, dated 0, and carry no other mode
// than 0644, 0755 or a directory's sticky 1777.
import { createHash } from "node:crypto";
import { closeSync, lstatSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, readlinkSync } from "node:fs";
import { renameSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";

export interface ImageConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Env?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>>;
}

export interface DockerArchiveOptions {
  /** Full reference, `docker.io/name/name:tag`. */
  readonly reference: string;
  /** The image's root; becomes the top layer. */
  readonly rootDir: string;
  /** A layer below it, for what seldom changes: a node that has it does not unpack it again. */
  readonly baseDir?: string;
  readonly config: ImageConfig;
  readonly outFile: string;
}

export interface DockerArchive {
  readonly bytes: number;
  /** Digest of the config, which names the image. */
  readonly imageId: string;
}

interface Layer {
  readonly rootDir: string;
  readonly entries: readonly Entry[];
  readonly bytes: number;
}

interface Entry {
  /** Relative to the layer's root, without a leading `/`. */
  readonly path: string;
  readonly kind: "file" | "folder" | "link";
  readonly mode: number;
  readonly bytes: number;
  readonly target: string;
}

const blockBytes = 512;
const copyChunkBytes = 1 << 20;

/** Takes the archive's place in one rename, so that a reader never meets half of it. */
export function writeDockerArchive(options: DockerArchiveOptions): DockerArchive {
  const roots = options.baseDir === undefined ? [options.rootDir] : [options.baseDir, options.rootDir];
  const layers = roots.map((rootDir) => readLayer(rootDir));
  const draft = `${options.outFile}.${process.pid}`;
  mkdirSync(dirname(options.outFile), { recursive: true });
  const out = new TarFile(draft);
  try {
    const digests = layers.map((layer, index) => out.addLayer(`layer-${index}.tar`, layer));
    const config = Buffer.from(JSON.stringify(imageConfig(options.config, digests)));
    const imageId = createHash("sha256").update(config).digest("hex");
    const manifest = [
      { Config: `${imageId}.json`, RepoTags: [options.reference], Layers: layers.map((_, i) => `layer-${i}.tar`) },
    ];
    out.addBytes(`${imageId}.json`, config);
    out.addBytes("manifest.json", Buffer.from(JSON.stringify(manifest)));
    const bytes = out.close();
    renameSync(draft, options.outFile);
    return { bytes, imageId };
  } catch (error) {
    out.abandon();
    rmSync(draft, { force: true });
    throw error;
  }
}

function imageConfig(config: ImageConfig, digests: readonly string[]): object {
  return {
    created: "1970-01-01T00:00:00Z",
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    os: "linux",
    config,
    rootfs: { type: "layers", diff_ids: digests.map((digest) => `sha256:${digest}`) },
  };
}

function readLayer(rootDir: string): Layer {
  const entries = listEntries(rootDir, "");
  const bytes = entries.reduce((sum, entry) => sum + blockBytes + padded(entry.bytes), 2 * blockBytes);
  return { rootDir, entries, bytes };
}

function listEntries(rootDir: string, folder: string): readonly Entry[] {
  const names = readdirSync(join(rootDir, folder)).sort();
  return names.flatMap((name) => {
    const path = folder === "" ? name : `${folder}/${name}`;
    const stat = lstatSync(join(rootDir, path));
    if (stat.isDirectory()) {
      const mode = (stat.mode & 0o1000) === 0 ? 0o755 : 0o1777;
      return [{ path, kind: "folder" as const, mode, bytes: 0, target: "" }, ...listEntries(rootDir, path)];
    }
    if (stat.isSymbolicLink()) {
      return [{ path, kind: "link" as const, mode: 0o777, bytes: 0, target: readlinkSync(join(rootDir, path)) }];
    }
    if (!stat.isFile()) throw new Error(`${path} is neither a file nor a folder nor a symbolic link`);
    const mode = (stat.mode & 0o111) === 0 ? 0o644 : 0o755;
    return [{ path, kind: "file" as const, mode, bytes: stat.size, target: "" }];
  });
}

/** A tar that is written front to back; a layer is a tar inside it. */
class TarFile {
  readonly #fd: number;
  #bytes = 0;

  constructor(path: string) {
    this.#fd = openSync(path, "w", 0o644);
  }

  addBytes(path: string, content: Uint8Array): void {
    this.#write(header({ path, kind: "file", mode: 0o644, bytes: content.length, target: "" }));
    this.#write(content);
    this.#pad(content.length);
  }

  /** Returns the layer's digest. */
  addLayer(path: string, layer: Layer): string {
    this.#write(header({ path, kind: "file", mode: 0o644, bytes: layer.bytes, target: "" }));
    const hash = createHash("sha256");
    const write = (chunk: Uint8Array): void => {
      hash.update(chunk);
      this.#write(chunk);
    };
    for (const entry of layer.entries) {
      write(header(entry));
      if (entry.kind !== "file") continue;
      copyFile(join(layer.rootDir, entry.path), entry.bytes, write);
      write(Buffer.alloc(padded(entry.bytes) - entry.bytes));
    }
    write(Buffer.alloc(2 * blockBytes));
    this.#pad(layer.bytes);
    return hash.digest("hex");
  }

  /** Ends the archive; returns its size. */
  close(): number {
    this.#write(Buffer.alloc(2 * blockBytes));
    closeSync(this.#fd);
    return this.#bytes;
  }

  abandon(): void {
    closeSync(this.#fd);
  }

  #write(chunk: Uint8Array): void {
    let done = 0;
    while (done < chunk.length) done += writeSync(this.#fd, chunk, done);
    this.#bytes += chunk.length;
  }
  #pad(contentBytes: number): void {
    this.#write(Buffer.alloc(padded(contentBytes) - contentBytes));
  }
}

function copyFile(path: string, bytes: number, write: (chunk: Uint8Array) => void): void {
  if (bytes <= copyChunkBytes) {
    const content = readFileSync(path);
    if (content.length !== bytes) throw new Error(`${path} changed while it was being read`);
    write(content);
    return;
  }
  const fd = openSync(path, "r");
  try {
    const chunk = Buffer.alloc(copyChunkBytes);
    for (let done = 0; done < bytes;) {
      const read = readSync(fd, chunk, 0, Math.min(chunk.length, bytes - done), done);
      if (read === 0) throw new Error(`${path} changed while it was being read`);
      write(chunk.subarray(0, read));
      done += read;
    }
  } finally {
    closeSync(fd);
  }
}

function padded(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes;
}

/** One POSIX ustar header: 512 bytes, numbers in octal. */
function header(entry: Entry): Uint8Array {
  const block = Buffer.alloc(blockBytes);
  const { name, prefix } = splitPath(entry.kind === "folder" ? `${entry.path}/` : entry.path);
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, "0");
  if (Buffer.byteLength(entry.target) > 100) throw new Error(`the target of ${entry.path} is longer than 100 bytes`);
  block.write(name, 0);
  block.write(octal(entry.mode, 7), 100);
  block.write(octal(0, 7), 108); // owner
  block.write(octal(0, 7), 116); // group
  block.write(octal(entry.bytes, 11), 124);
  block.write(octal(0, 11), 136); // date
  block.write(" ".repeat(8), 148); // the checksum counts itself as blanks
  block.write({ file: "0", link: "2", folder: "5" }[entry.kind], 156);
  block.write(entry.target, 157);
  block.write("ustar\u000000", 257);
  block.write(prefix, 345);
  block.write(
    `${octal(
      block.reduce((sum, byte) => sum + byte, 0),
      6,
    )}\u0000 `,
    148,
  );
  return block;
}

/** A path of up to 255 bytes is cut at a slash into 155 + 100. */
function splitPath(path: string): { readonly name: string; readonly prefix: string } {
  if (Buffer.byteLength(path) <= 100) return { name: path, prefix: "" };
  for (let at = path.indexOf("/"); at !== -1 && at < path.length - 1; at = path.indexOf("/", at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) return { name, prefix };
  }
  throw new Error(`${path} is too long for a tar entry`);
}
