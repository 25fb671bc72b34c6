// Entries of one millisecond came in any order, page ends in their middle included: a person logged in before there was
// an account.
import { expect, test } from "vitest";
import { audit, readAudit, type AuditRow } from "./audit.ts";
import { openMemoryDatabase } from "./storage/open-memory.fake.ts";

const admin = { id: "p1", name: "Ann", email: undefined, admin: true, teams: [] };

test("entries of one millisecond are read newest first, over the ends of pages too", async () => {
  await using database = await openMemoryDatabase();
  const subjects = Array.from({ length: 250 }, (_, at) => `entry ${at}`);
  for (const subject of subjects) await audit(database, { action: "login.browser", person: admin, subject }, 1000);
  const read: AuditRow[] = [];
  let before: string | undefined;
  do {
    const page = await readAudit(database, admin, before);
    read.push(...page.entries);
    before = page.next;
  } while (before !== undefined);
  expect(read.map(({ subject }) => subject)).toEqual(subjects.toReversed());
});
