// Secrets are removed in the end, whatever the end is: in order, by kill -9 of the process that made the copies, and by
// the next start when even the process that watches was killed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { roundsOf } from "#base/rounds.fake.ts";
import { checkChosenFolder, openVolumeFolder, removeAbandonedFolders } from "./volume-folder.ts";

const root = mkdtempSync(join(tmpdir(), "volumes-"));
afterAll(() => rmSync(root, { recursive: true }));
let counter = 0;
/** A directory for sockets, as a user's runtime directory has it. */
function runtime(): string {
  const path = join(root, `runtime-${counter++}`);
  mkdirSync(path, { mode: 0o700 });
  return path;
}

/** Resolves when it is gone; the test's own time limit is the deadline. */
async function vanishes(path: string): Promise<void> {
  while (existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe("openVolumeFolder()", () => {
  test("gives folders of the user alone, in memory where it can, and removes them with all that is in them", async () => {
    const place = runtime();
    const first = await openVolumeFolder({ runtime: place, name: "hello" });
    const second = await openVolumeFolder({ runtime: place, name: "../hello" });
    const modes = [first, second].map(({ path }) => (statSync(path).mode & 0o777).toString(8));
    expect(modes).toEqual(["700", "700"]);
    expect(second.path).not.toContain("..");
    mkdirSync(join(first.path, "deep"));
    writeFileSync(join(first.path, "deep/secret"), "hush");
    await first[Symbol.asyncDispose]();
    await first[Symbol.asyncDispose]();
    expect([existsSync(first.path), existsSync(second.path)]).toEqual([false, true]);
    await second[Symbol.asyncDispose]();
    expect(readdirSync(place)).toEqual([]);
  });
  // The end of the one took the empty folder of the process from under the beginning of the other.
  test("begins while others of this process end", async () => {
    const place = runtime();
    const rounds = roundsOf(5, 15); // each starts a process
    const beginAndEnd = async (number: number): Promise<void> => {
      const path = join(root, `chosen-${number}`);
      for (let round = 0; round < rounds; round += 1) {
        const folder = await openVolumeFolder({ runtime: place, name: "hello", path });
        await folder[Symbol.asyncDispose]();
      }
    };
    await Promise.all([1, 2, 3].map(beginAndEnd));
    expect(readdirSync(place)).toEqual([]);
  });
  test("takes an empty folder of the user's choice and leaves it empty, or makes one and takes it away", async () => {
    const place = runtime();
    const there = join(root, "there");
    mkdirSync(there);
    for (const path of [there, join(root, "new", "deep")]) {
      const folder = await openVolumeFolder({ runtime: place, name: "hello", path });
      expect(folder.path).toBe(path);
      writeFileSync(join(path, "secret"), "hush");
      await folder[Symbol.asyncDispose]();
    }
    expect([readdirSync(there), existsSync(join(root, "new", "deep"))]).toEqual([[], false]);
  });
  test("refuses a folder that is not empty, and a file", async () => {
    const place = runtime();
    const full = join(root, "full");
    mkdirSync(full);
    writeFileSync(join(full, "mine"), "mine");
    await expect(openVolumeFolder({ runtime: place, name: "a", path: full })).rejects.toThrow("is not empty");
    await expect(openVolumeFolder({ runtime: place, name: "a", path: join(full, "mine") })).rejects.toThrow(
      "is no directory",
    );
    expect(readFileSync(join(full, "mine"), "utf8")).toBe("mine");
  });
  // A second `intercept` of one name was told that its folder is not empty, and not that the first one stands; and after a
  // crash nobody came to start the daemon that would have emptied it.
  test("leaves it to the daemon to say whose copies are there", async () => {
    const path = join(root, "of-the-first");
    await using folder = await openVolumeFolder({ runtime: runtime(), name: "hello", path });
    checkChosenFolder(folder.path);
    await expect(openVolumeFolder({ runtime: runtime(), name: "again", path })).rejects.toThrow(
      `--mount is ${path}, which is not empty`,
    );
  });
  test("says beforehand what it would refuse, and makes nothing", () => {
    const file = join(root, "a-file");
    writeFileSync(file, "mine");
    expect(() => checkChosenFolder(file)).toThrow(`--mount is ${file}, which is no directory`);
    expect(() => checkChosenFolder(join(file, "below"))).toThrow("cannot be used: a part of its path is no directory");
    checkChosenFolder(join(root, "later", "deep"));
    expect(existsSync(join(root, "later"))).toBe(false);
  });
});

/** A process that has a folder with a secret in it; gives its id, the folder and the id of what watches it. */
async function another(place: string, path?: string): Promise<{ pid: number; folder: string; watcher: number }> {
  const program = `
    import { openVolumeFolder } from "#host/volume-folder.ts";
    import { readFileSync, writeFileSync } from "node:fs";
    const folder = await openVolumeFolder(${JSON.stringify({ runtime: place, name: "hello", path })});
    writeFileSync(folder.path + "/secret", "hush");
    const [watcher] = readFileSync("/proc/" + process.pid + "/task/" + process.pid + "/children", "utf8").split(" ");
    console.log(JSON.stringify({ pid: process.pid, folder: folder.path, watcher: Number(watcher) }));
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: join(import.meta.dirname, "../.."),
  });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return JSON.parse(line.toString()) as { pid: number; folder: string; watcher: number };
}

describe("a process that is killed", () => {
  test("leaves nothing", async () => {
    const { pid, folder } = await another(runtime());
    expect(readdirSync(folder)).toEqual(["secret"]);
    process.kill(pid, "SIGKILL");
    await vanishes(folder);
  });
  test("leaves the user's own folder empty", async () => {
    const own = join(root, "own");
    mkdirSync(own);
    const { pid, folder } = await another(runtime(), own);
    expect(readdirSync(folder).toSorted()).toEqual([".telepresence", "secret"]);
    process.kill(pid, "SIGKILL");
    while (!existsSync(own) || readdirSync(own).length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
  test("together with what watches it leaves the next start to remove it, and nobody else's", async () => {
    const place = runtime();
    const own = join(root, "own-too");
    const [dead, chosen, alive] = await Promise.all([another(place), another(place, own), another(place)]);
    for (const { pid, watcher } of [dead, chosen]) {
      process.kill(watcher, "SIGKILL");
      process.kill(pid, "SIGKILL");
      await vanishes(`/proc/${pid}`);
    }
    expect([dead, chosen, alive].map(({ folder }) => readFileSync(join(folder, "secret"), "utf8"))).toHaveLength(3);
    await removeAbandonedFolders(place); // how many is not ours to say: the place in memory is all processes'
    expect([dead, chosen, alive].map(({ folder }) => existsSync(join(folder, "secret")))).toEqual([false, false, true]);
    process.kill(alive.pid, "SIGKILL");
    await vanishes(alive.folder);
  });
});
