// Two servers on one file: each has half of what happens in its memory.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { claimSqlite } from "./sole-sqlite.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-cloud-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
const setUp = () => {
  const path = join(folder, `${++count}.sqlite`);
  const clock = new FakeClock();
  return { path, clock, claim: () => claimSqlite(path, { clock, log: silentLogger }) };
};

test("the second server waits for the end of the first", async () => {
  const { clock, claim } = setUp();
  const first = await claim();
  const second = claim();
  await clock.advance(5000);
  await first[Symbol.asyncDispose]();
  await clock.advance(1000);
  await (await second)[Symbol.asyncDispose]();
  expect(clock.pending).toBe(0);
});

test("the second server gives up when the first one stays, and says so", async () => {
  const { path, clock, claim } = setUp();
  await using _first = await claim();
  const second = claim();
  second.catch(() => undefined); // it is looked at below
  await clock.advance(13_000);
  await expect(second).rejects.toThrow(`another cloud server works on the database ${path}`);
  expect(clock.pending).toBe(0);
});

// The lock lay beside the path as it was given: two servers worked on one file, one of them by a link.
test.each(["file", "folder"])("a link to the %s is no way past the first server", async (what) => {
  const real = join(folder, `real ${what}`);
  const linked = join(folder, `link to ${what}`);
  const [path, other] = what === "file" ? [real, linked] : [join(real, "db"), join(linked, "db")];
  if (what === "folder") mkdirSync(real);
  const clock = new FakeClock();
  const first = await claimSqlite(path, { clock, log: silentLogger });
  symlinkSync(real, linked);
  const second = claimSqlite(other, { clock, log: silentLogger });
  second.catch(() => undefined); // it is looked at below
  await clock.advance(13_000);
  await expect(second).rejects.toThrow(`another cloud server works on the database ${other}`);
  await first[Symbol.asyncDispose]();
  await (await claimSqlite(other, { clock, log: silentLogger }))[Symbol.asyncDispose]();
});

test("a server that was killed keeps nobody out", { timeout: 30_000 }, async () => {
  const { path, clock, claim } = setUp();
  const program = `
    const { DatabaseSync } = require("node:sqlite");
    const lock = new DatabaseSync(process.argv[1]);
    lock.exec("BEGIN EXCLUSIVE");
    console.log("has it");
    setInterval(() => lock, 1000);`;
  const other = spawn(process.execPath, ["-e", program, `${path}-lock`], { stdio: ["ignore", "pipe", "inherit"] });
  await once(other.stdout, "data");
  const second = claim();
  const early = await Promise.race([second.then(() => "claimed"), clock.advance(1000).then(() => "waits")]);
  expect(early).toBe("waits");
  other.kill("SIGKILL");
  await once(other, "exit");
  await clock.advance(1000);
  await (await second)[Symbol.asyncDispose]();
});

test("the lock's file is its owner's alone, and one that cannot be made is told", async () => {
  const { path, claim, clock } = setUp();
  await using _claim = await claim();
  expect(statSync(`${path}-lock`).mode & 0o777).toBe(0o600);
  expect(existsSync(`${path}-lock-journal`)).toBe(false);
  const inFile = claimSqlite(join(import.meta.filename, "cloud.sqlite"), { clock, log: silentLogger });
  await expect(inFile).rejects.toThrow("cannot be opened");
});
