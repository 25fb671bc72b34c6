// SQLite held to the contract, and what is its own: files.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { systemClock } from "#base/clock.ts";
import { databaseContract } from "./database.contract.ts";
import { openSqlite } from "./sqlite.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-cloud-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
const openFile = async () => {
  const path = join(folder, `${++count}.sqlite`);
  return { another: async () => openSqlite(path, systemClock) };
};

databaseContract("SQLite", openFile);

test("the folder of a new database is its owner's alone", async () => {
  await using _database = openSqlite(join(folder, "new", "cloud.sqlite"), systemClock);
  expect(statSync(join(folder, "new")).mode & 0o777).toBe(0o700);
});

test("the file is its owner's alone, in whatever folder", async () => {
  const path = join(folder, "open.sqlite");
  await using database = openSqlite(path, systemClock);
  await database.run("CREATE TABLE things (id TEXT)");
  for (const end of ["", "-wal"]) expect(statSync(path + end).mode & 0o777).toBe(0o600);
});

test("a statement waits for the transaction of another process", async () => {
  const path = join(folder, "two.sqlite");
  const clock = new FakeClock();
  await using database = openSqlite(path, clock);
  await database.run("CREATE TABLE things (id TEXT)");
  await using other = openSqlite(path, systemClock);
  const ended = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const holding = other.transaction(async () => {
    begun.resolve();
    await ended.promise;
  });
  await begun.promise;
  const inserted = database.run("INSERT INTO things (id) VALUES ('a')");
  await clock.advance(1000);
  ended.resolve();
  await holding;
  await clock.advance(1000);
  expect(await inserted).toBe(1);
});

test("a file that cannot be opened is named", () => {
  const path = join(import.meta.filename, "cloud.sqlite");
  expect(() => openSqlite(path, systemClock)).toThrow(`the database ${path} cannot be opened`);
});
