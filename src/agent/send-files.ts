// Files of a mounted volume as a tar stream, for laptops whose exec reaches this container but finds no `tar` in the
// application's: `traffic-agent files FOLDER NAME`, names in the archive as `./NAME/…`.
import { lstat, open, readdir, readlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { tarEnd, tarHeader, tarPadding, type TarEntry } from "#wire/tar.ts";

/** Resolves when there is room for more. */
type Write = (bytes: Buffer) => Promise<void>;

const pieceBytes = 64 * 1024;

/** Gives the paths that could not be read. Rejects when there is nothing of that name. */
export async function sendFiles(folder: string, name: string, write: Write): Promise<readonly string[]> {
  const unreadable: string[] = [];
  await lstat(join(folder, name));
  await send({ folder, write, unreadable }, name);
  await write(tarEnd);
  return unreadable;
}

interface Sending {
  readonly folder: string;
  readonly write: Write;
  readonly unreadable: string[];
}

async function send(sending: Sending, path: string): Promise<void> {
  const { folder, write, unreadable } = sending;
  const whole = join(folder, path);
  try {
    const stat = await lstat(whole);
    const header = (entry: Pick<TarEntry, "kind"> & Partial<TarEntry>): Buffer =>
      tarHeader({ name: path === "." ? "." : `./${path}`, link: "", size: 0, mode: stat.mode, ...entry });
    if (stat.isFile()) {
      await using file = await open(whole);
      await write(header({ kind: "file", size: stat.size }));
      await sendContent(file, stat.size, write);
    } else if (stat.isDirectory()) {
      const names = await readdir(whole);
      await write(header({ kind: "folder" }));
      for (const name of names.toSorted()) await send(sending, path === "." ? name : `${path}/${name}`);
    } else if (stat.isSymbolicLink()) {
      await write(header({ kind: "symlink", link: await readlink(whole) }));
    } else {
      unreadable.push(path);
    }
  } catch {
    unreadable.push(path);
  }
}

/** Exactly as much as its header says, also of a file that is being written. */
async function sendContent(file: FileHandle, size: number, write: Write): Promise<void> {
  const buffer = Buffer.alloc(pieceBytes);
  let left = size;
  while (left > 0) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(left, pieceBytes));
    if (bytesRead === 0) break;
    await write(Buffer.from(buffer.subarray(0, bytesRead)));
    left -= bytesRead;
  }
  for (; left > 0; left -= Math.min(left, pieceBytes)) await write(Buffer.alloc(Math.min(left, pieceBytes)));
  await write(tarPadding(size));
}
