// SQLite held to the contract, and what is its own: files.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
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

test("a file that cannot be opened is named", () => {
  const path = join(import.meta.filename, "cloud.sqlite");
  expect(() => openSqlite(path, systemClock)).toThrow(`the database ${path} cannot be opened`);
});
