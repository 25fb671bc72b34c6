// Clusters and the tokens of their managers, as rows. A cluster is a team's; a token is as good as the login that asked
// for it, and as its person's place in the team.
import { AppError } from "#base/error.ts";
import type { Person, Team } from "#cloud/identity/people.ts";
import { hashToken, newId, newToken } from "#cloud/identity/tokens.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";

/** chosen: of a team. */
const maxClusters = 50;
/** chosen: of one login for one cluster; the last ones, for a manager may still hold the one before. */
const maxTokens = 5;

export interface Cluster {
  readonly id: string;
  readonly teamId: string;
  readonly teamName: string;
  /** UID of the namespace kube-system. */
  readonly uid: string;
  readonly name: string;
}

const columns = `clusters.id, clusters.team_id AS "teamId", teams.name AS "teamName", clusters.uid, clusters.name`;
const joined = "clusters JOIN teams ON teams.id = clusters.team_id";

/** By name or id; the only one when none is named. Teams that one is no member of do not exist. */
export function chooseTeam({ teams }: Pick<Person, "teams">, wanted: string | undefined): Team {
  const [first, ...others] = teams;
  if (first === undefined) throw new AppError("denied", "you are in no team");
  if (wanted === undefined && others.length === 0) return first;
  const names = teams.map(({ name }) => name).join(", ");
  if (wanted === undefined) {
    throw new AppError("usage", `you are in several teams: ${names}`, { hint: "name one with --team" });
  }
  const found = teams.find(({ id }) => id === wanted) ?? teams.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  throw new AppError("not_found", `you are in no team "${wanted}", expected one of ${names}`);
}

/** Adds it, or names it anew. */
export function provideCluster(
  database: Database,
  wish: { readonly teamId: string; readonly uid: string; readonly name: string },
  nowMs: number,
): Promise<{ readonly cluster: Cluster; readonly isNew: boolean }> {
  return database.transaction(async (queries) => {
    const known = await findCluster(queries, wish.uid, [wish.teamId]);
    const count = await one<{ count: number }>(queries, "SELECT COUNT(*) AS count FROM clusters WHERE team_id = $1", [
      wish.teamId,
    ]);
    if (known === undefined && Number(count?.count) >= maxClusters) {
      throw new AppError("conflict", `the team has ${maxClusters} clusters already`);
    }
    await queries.run(
      `INSERT INTO clusters (id, team_id, uid, name, created_ms) VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (team_id, uid) DO UPDATE SET name = excluded.name`,
      [newId(), wish.teamId, wish.uid, wish.name, nowMs],
    );
    const cluster = await findCluster(queries, wish.uid, [wish.teamId]);
    if (cluster === undefined) throw new AppError("internal", "a cluster that was just made is not there");
    return { cluster, isNew: known === undefined };
  });
}

export async function findCluster(
  queries: Queries,
  uid: string,
  teamIds: readonly string[],
): Promise<Cluster | undefined> {
  const rows = await queries.all<Cluster>(`SELECT ${columns} FROM ${joined} WHERE clusters.uid = $1`, [uid]);
  return rows.find(({ teamId }) => teamIds.includes(teamId));
}

export async function clustersOf(queries: Queries, teamIds: readonly string[]): Promise<readonly Cluster[]> {
  const all = teamIds.map((id) =>
    queries.all<Cluster>(`SELECT ${columns} FROM ${joined} WHERE clusters.team_id = $1 ORDER BY clusters.name`, [id]),
  );
  return (await Promise.all(all)).flat();
}

/** What a laptop's call was allowed by. */
export interface TokenOwner {
  readonly personId: string;
  readonly loginId: string | null;
  readonly keyId: string | null;
}

/** Whose bearer token this is; undefined for what is none of a laptop. */
export async function ownerOfBearer(
  queries: Queries,
  bearer: string,
  personId: string,
): Promise<TokenOwner | undefined> {
  const hash = [hashToken(bearer)];
  const login = await one<{ id: string }>(queries, "SELECT id FROM logins WHERE access_hash = $1", hash);
  if (login !== undefined) return { personId, loginId: login.id, keyId: null };
  const key = await one<{ id: string }>(queries, "SELECT id FROM api_keys WHERE hash = $1", hash);
  return key && { personId, loginId: null, keyId: key.id };
}

export function newClusterToken(
  database: Database,
  clusterId: string,
  { personId, loginId, keyId }: TokenOwner,
  nowMs: number,
): Promise<string> {
  return database.transaction(async (queries) => {
    const token = newToken("cluster");
    const older = await queries.all<{ hash: string }>(
      `SELECT hash FROM cluster_tokens WHERE cluster_id = $1 AND person_id = $2
       AND (login_id = $3 OR key_id = $4) ORDER BY created_ms DESC`,
      [clusterId, personId, loginId ?? "", keyId ?? ""],
    );
    for (const { hash } of older.slice(maxTokens - 1)) {
      await queries.run("DELETE FROM cluster_tokens WHERE hash = $1", [hash]);
    }
    await queries.run(
      `INSERT INTO cluster_tokens (hash, cluster_id, person_id, login_id, key_id, created_ms)
       VALUES ($1, $2, $3, $4, $5, $6)`,
      [hashToken(token), clusterId, personId, loginId, keyId, nowMs],
    );
    return token;
  });
}

/** Which cluster a token opens, while its login lives and its person is of the team. */
export async function clusterOfToken(queries: Queries, hash: string, nowMs: number): Promise<Cluster | undefined> {
  return one<Cluster>(
    queries,
    `SELECT ${columns} FROM cluster_tokens
       JOIN clusters ON clusters.id = cluster_tokens.cluster_id
       JOIN teams ON teams.id = clusters.team_id
       JOIN members ON members.team_id = clusters.team_id AND members.person_id = cluster_tokens.person_id
       LEFT JOIN logins ON logins.id = cluster_tokens.login_id
     WHERE cluster_tokens.hash = $1 AND (cluster_tokens.key_id IS NOT NULL OR logins.expires_ms > $2)`,
    [hash, nowMs],
  );
}

/** By the hash of their tokens: who of its team has laptops that joined this cluster. */
export async function joinedPeople(
  queries: Queries,
  clusterId: string,
): Promise<ReadonlyMap<string, { readonly id: string; readonly name: string }>> {
  const rows = await queries.all<{ hash: string; id: string; name: string }>(
    `SELECT cluster_tokens.hash, people.id, people.name FROM cluster_tokens
       JOIN people ON people.id = cluster_tokens.person_id
       JOIN clusters ON clusters.id = cluster_tokens.cluster_id
       JOIN members ON members.team_id = clusters.team_id AND members.person_id = people.id
     WHERE cluster_tokens.cluster_id = $1`,
    [clusterId],
  );
  return new Map(rows.map(({ hash, id, name }) => [hash, { id, name }]));
}
