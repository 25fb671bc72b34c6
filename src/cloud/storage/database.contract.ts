// What each kind of database is held to, and what is kept in it. The suite runs on SQLite beside the code and on
// PostgreSQL in test/services.
import { describe, expect, test } from "vitest";
import type { Database } from "./database.ts";
import { one } from "./database.ts";
import { migrate } from "./migrate.ts";

/** `open` gives an empty one; called again, another connection to the same where `shared` says so. */
export function databaseContract(
  name: string,
  open: () => Promise<{ readonly another: () => Promise<Database> }>,
): void {
  describe(`${name} as a database`, () => {
    const steps = [["CREATE TABLE things (id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, note TEXT)"]];
    const fresh = async (): Promise<Database> => {
      const database = await (await open()).another();
      await migrate(database, steps);
      return database;
    };
    const insert = "INSERT INTO things (id, at_ms, note) VALUES ($1, $2, $3)";

    test("gives back what it was given: text, milliseconds, nothing", async () => {
      await using database = await fresh();
      expect(await database.run(insert, ["ä'; --", 1_795_417_936_858, null])).toBe(1);
      expect(await database.all("SELECT * FROM things")).toEqual([
        expect.objectContaining({ id: "ä'; --", at_ms: 1_795_417_936_858, note: null }),
      ]);
    });

    test("counts what it changed, and returns what it was asked to", async () => {
      await using database = await fresh();
      await database.run(insert, ["a", 1, null]);
      await database.run(insert, ["b", 2, null]);
      expect(await database.run("UPDATE things SET note = $1", ["x"])).toBe(2);
      expect(await one(database, "DELETE FROM things WHERE id = $1 RETURNING at_ms", ["b"])).toEqual({ at_ms: 2 });
      expect(await one(database, "DELETE FROM things WHERE id = $1 RETURNING at_ms", ["b"])).toBeUndefined();
    });

    test("refuses a second entry of one name by a code of ours", async () => {
      await using database = await fresh();
      await database.run(insert, ["a", 1, null]);
      await expect(database.run(insert, ["a", 1, null])).rejects.toMatchObject({ code: "conflict" });
      await expect(database.run("SELECT nonsense")).rejects.toMatchObject({ code: "internal" });
      await database.run(`${insert} ON CONFLICT (id) DO UPDATE SET note = excluded.note`, ["a", 1, "new"]);
      expect(await one(database, "SELECT note FROM things")).toEqual({ note: "new" });
    });

    test("a transaction that fails leaves nothing", async () => {
      await using database = await fresh();
      const failing = database.transaction(async (queries) => {
        await queries.run(insert, ["a", 1, null]);
        throw new Error("no");
      });
      await expect(failing).rejects.toThrow("no");
      expect(await database.all("SELECT id FROM things")).toEqual([]);
      await database.transaction((queries) => queries.run(insert, ["b", 1, null]));
      expect(await database.all("SELECT id FROM things")).toHaveLength(1);
    });

    test("a failed statement inside a transaction takes all of it back", async () => {
      await using database = await fresh();
      const failing = database.transaction(async (queries) => {
        await queries.run(insert, ["a", 1, null]);
        await queries.run(insert, ["a", 1, null]);
      });
      await expect(failing).rejects.toMatchObject({ code: "conflict" });
      expect(await database.all("SELECT id FROM things")).toEqual([]);
    });

    test("what is asked beside a transaction is not part of it", async () => {
      await using database = await fresh();
      let asked: Promise<number> | undefined;
      const failing = database.transaction(async (queries) => {
        await queries.run(insert, ["inside", 1, null]);
        asked = database.run(insert, ["outside", 1, null]);
        throw new Error("no");
      });
      await expect(failing).rejects.toThrow("no");
      expect(await asked).toBe(1);
      expect(await database.all("SELECT id FROM things")).toMatchObject([{ id: "outside" }]);
    });

    test("two that migrate at once take each step once", async () => {
      const place = await open();
      await using first = await place.another();
      await using second = await place.another();
      const once = [...steps, ["INSERT INTO things (id, at_ms) VALUES ('once', 1)"]];
      expect(await Promise.all([migrate(first, once), migrate(second, once)])).toEqual([2, 2]);
      expect(await second.all("SELECT id FROM things")).toHaveLength(1);
    });

    test("a step that fails leaves the database at the step before", async () => {
      await using database = await fresh();
      const bad = [...steps, ["ALTER TABLE things ADD COLUMN size INTEGER", "nonsense"]];
      await expect(migrate(database, bad)).rejects.toMatchObject({ code: "internal" });
      expect(await migrate(database, [...steps, ["ALTER TABLE things ADD COLUMN size INTEGER"]])).toBe(2);
    });

    test("a database of a later version is left alone", async () => {
      await using database = await fresh();
      await expect(migrate(database, [])).rejects.toThrow("the database is of version 1, and this program knows");
      expect(await one(database, "SELECT version FROM schema_version")).toMatchObject({ version: 1 });
    });

    test("takes the product's own steps", async () => {
      await using database = await (await open()).another();
      const version = await migrate(database);
      expect(await migrate(database)).toBe(version);
    });
  });
}
