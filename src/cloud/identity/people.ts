// People and teams: the rows, and who belongs where. A team is the tenant: what one keeps, another never sees.
import { AppError } from "#base/error.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import { newId } from "./tokens.ts";

export interface Team {
  readonly id: string;
  readonly name: string;
}

export interface Person {
  readonly id: string;
  readonly name: string;
  readonly email: string | undefined;
  /** Of the whole server. */
  readonly admin: boolean;
  readonly teams: readonly Team[];
}

interface PersonRow {
  readonly id: string;
  readonly name: string;
  readonly email: string | null;
  readonly admin: number;
}

export interface NewPerson {
  /** '' for built-in accounts. */
  readonly issuer: string;
  readonly subject: string;
  readonly name: string;
  readonly email?: string | undefined;
  readonly password?: string;
  readonly admin: boolean;
}

/** chosen: the team of whoever is in no other. */
export const firstTeam = "everyone";

export async function findPerson(queries: Queries, id: string): Promise<Person | undefined> {
  const row = await one<PersonRow>(queries, "SELECT id, name, email, admin FROM people WHERE id = $1", [id]);
  if (row === undefined) return undefined;
  const teams = await queries.all<Team>(
    "SELECT teams.id, teams.name FROM teams JOIN members ON members.team_id = teams.id WHERE members.person_id = $1 ORDER BY teams.name",
    [id],
  );
  return { id: row.id, name: row.name, email: row.email ?? undefined, admin: row.admin !== 0, teams };
}

export async function createPerson(queries: Queries, person: NewPerson, nowMs: number): Promise<string> {
  const id = newId();
  const { issuer, subject, name, email = null, password = null, admin } = person;
  const added = await queries.run(
    `INSERT INTO people (id, issuer, subject, name, email, password, admin, created_ms)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (issuer, subject) DO NOTHING`,
    [id, issuer, subject, name, email, password, admin ? 1 : 0, nowMs],
  );
  if (added === 1) return id;
  throw new AppError("conflict", `the name ${subject} is taken`, { hint: "choose another one" });
}

/** The team of this name, made when there is none. */
export async function provideTeam(queries: Queries, name: string, nowMs: number): Promise<Team> {
  await queries.run("INSERT INTO teams (id, name, created_ms) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING", [
    newId(),
    name,
    nowMs,
  ]);
  const team = await one<Team>(queries, "SELECT id, name FROM teams WHERE name = $1", [name]);
  if (team === undefined) throw new AppError("internal", "a team that was just made is not there");
  return team;
}

export async function joinTeam(queries: Queries, personId: string, teamId: string): Promise<void> {
  await queries.run("INSERT INTO members (team_id, person_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", [
    teamId,
    personId,
  ]);
}

/** Exactly these teams: what an identity provider says at each login. */
export async function setTeams(
  queries: Queries,
  personId: string,
  names: readonly string[],
  nowMs: number,
): Promise<void> {
  await queries.run("DELETE FROM members WHERE person_id = $1", [personId]);
  for (const name of names.length === 0 ? [firstTeam] : names) {
    await joinTeam(queries, personId, (await provideTeam(queries, name, nowMs)).id);
  }
}

export async function hasAdmin(queries: Queries): Promise<boolean> {
  return (await one(queries, "SELECT id FROM people WHERE admin = 1 LIMIT 1")) !== undefined;
}

/** The teams whose things a person sees: an administrator's are all. */
export async function visibleTeams(queries: Queries, person: Person): Promise<readonly Team[]> {
  return person.admin ? queries.all<Team>("SELECT id, name FROM teams ORDER BY name") : person.teams;
}
