// What administrators change about others. Rights are checked again inside the transaction, and no two such changes run
// at once: of two administrators who remove each other one stays.
import { AppError } from "#base/error.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import type { Person, Team } from "./people.ts";
import { findPerson } from "./people.ts";

/** chosen: shown at once; more are found by their names. */
export const maxListed = 200;

export interface ListedPerson {
  readonly id: string;
  readonly name: string;
  readonly email: string | null;
  readonly admin: boolean;
  readonly teams: readonly string[];
}

type PersonRow = Omit<ListedPerson, "admin" | "teams"> & { readonly admin: number };

/** By name; one more than are listed when there are more. */
export async function listPeople(queries: Queries, search: string): Promise<readonly ListedPerson[]> {
  // SQLite knows capitals of ASCII only: Ömer is found as he is written, too
  const patterns = [search.toLowerCase(), search].map((text) => `%${text.replace(/[\\%_]/g, "\\$&")}%`);
  const found = await queries.all<PersonRow>(
    `SELECT id, name, email, admin FROM people
     WHERE lower(name) LIKE $1 ESCAPE '\\' OR name LIKE $2 ESCAPE '\\' OR lower(COALESCE(email, '')) LIKE $1 ESCAPE '\\'
     ORDER BY lower(name), id LIMIT ${maxListed + 1}`,
    patterns,
  );
  const places = found.map((_, at) => `$${at + 1}`).join(", ");
  const members = await queries.all<{ person: string; team: string }>(
    `SELECT members.person_id AS person, teams.name AS team FROM members JOIN teams ON teams.id = members.team_id
     WHERE members.person_id IN (${places === "" ? "NULL" : places}) ORDER BY teams.name`,
    found.map(({ id }) => id),
  );
  const teams = Map.groupBy(members, ({ person }) => person);
  return found.map((row) => {
    return { ...row, admin: row.admin !== 0, teams: (teams.get(row.id) ?? []).map(({ team }) => team) };
  });
}

export interface ManagedPerson extends Person {
  /** The name they log in with here; undefined for those of an identity provider. */
  readonly subject: string | undefined;
}

export async function findManaged(queries: Queries, id: string): Promise<ManagedPerson> {
  const person = await findPerson(queries, id);
  const account = await one<{ issuer: string; subject: string }>(
    queries,
    "SELECT issuer, subject FROM people WHERE id = $1",
    [id],
  );
  if (person === undefined || account === undefined) throw new AppError("not_found", "there is no such person");
  return { ...person, subject: account.issuer === "" ? account.subject : undefined };
}

/** `by` is an administrator while this runs. */
export function manage<T>(
  database: Database,
  by: Person,
  id: string,
  work: (queries: Queries, person: ManagedPerson) => Promise<T>,
): Promise<T> {
  return database.exclusive(async (queries) => {
    if ((await findPerson(queries, by.id))?.admin !== true) {
      throw new AppError("denied", "this is for administrators only");
    }
    return work(queries, await findManaged(queries, id));
  });
}

/** Links that this person has made end with the right to make them (`invites.ts`, `password-links.ts`). */
export async function setAdmin(queries: Queries, id: string, admin: boolean): Promise<void> {
  await queries.run("UPDATE people SET admin = $1 WHERE id = $2", [admin ? 1 : 0, id]);
}

/** The team, if they were in it. */
export async function leaveTeam(queries: Queries, personId: string, teamId: string): Promise<Team | undefined> {
  const left = await queries.run("DELETE FROM members WHERE person_id = $1 AND team_id = $2", [personId, teamId]);
  return left === 0 ? undefined : one<Team>(queries, "SELECT id, name FROM teams WHERE id = $1", [teamId]);
}

/** With their logins, keys, and what they have made; entries of the audit log stay. */
export async function removePerson(queries: Queries, id: string): Promise<void> {
  await queries.run("DELETE FROM people WHERE id = $1", [id]);
}

/** Every browser, laptop and key. */
export async function endAllLogins(queries: Queries, personId: string): Promise<void> {
  for (const table of ["browser_sessions", "logins", "api_keys"]) {
    await queries.run(`DELETE FROM ${table} WHERE person_id = $1`, [personId]);
  }
}
