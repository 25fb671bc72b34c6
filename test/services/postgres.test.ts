// The cloud server's database on a real PostgreSQL: what a database is held to, and every way to log in.
import { afterAll, beforeAll, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { logInContract } from "#cloud/oauth/log-in-flows.contract.ts";
import { databaseContract } from "#cloud/storage/database.contract.ts";
import { previewsContract } from "#cloud/previews/previews.contract.ts";
import type { Database } from "#cloud/storage/database.ts";
import { migrate } from "#cloud/storage/migrate.ts";
import { openPostgres } from "#cloud/storage/postgres.ts";
import { PostgresServer } from "./postgres-server.ts";

let server: PostgresServer;
beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(() => server[Symbol.asyncDispose]());

const open = (url: string): Promise<Database> => openPostgres(url, silentLogger);

databaseContract("PostgreSQL", async () => {
  const url = server.newDatabase();
  return { another: () => open(url) };
});

logInContract("PostgreSQL", async () => {
  const database = await open(server.newDatabase());
  await migrate(database);
  return database;
});

previewsContract("PostgreSQL", async () => {
  const database = await open(server.newDatabase());
  await migrate(database);
  return database;
});

test("a database that does not answer is told in one sentence, without its password", async () => {
  const opening = openPostgres("postgres://ann:secret@127.0.0.1:1/cloud", silentLogger);
  await expect(opening).rejects.toThrow(/^the database does not answer: (?!.*secret)/);
});
