// Previews as rows. Who asks is held to their teams by whoever calls this: `preview-routes.ts` for people, `proxy.ts`
// for visitors.
import { AppError } from "#base/error.ts";
import { newId } from "#cloud/identity/tokens.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import type { CreatePreviewRequest, PreviewAccess } from "#wire/cloud-api.ts";
import { newHostName } from "./host-names.ts";

/** chosen: of one person; how long the host of a removed one says so; after how long without its manager one is removed. */
const [maxOfPerson, removedMs, asleepMs] = [100, 30 * 24 * 3600_000, 7 * 24 * 3600_000];

export type RemovedWhy = "removed" | "ended" | "expired";

export interface Preview {
  readonly id: string;
  /** The label below the domain of previews. */
  readonly host: string;
  readonly teamId: string;
  readonly teamName: string;
  /** The row. */
  readonly clusterId: string;
  readonly clusterUid: string;
  readonly clusterName: string;
  readonly personId: string;
  readonly personName: string;
  /** What requests are marked with. */
  readonly interceptId: string;
  readonly intercept: string;
  readonly workload: CreatePreviewRequest["workload"];
  readonly ingress: CreatePreviewRequest["ingress"];
  readonly insecure: boolean;
  /** PEM. */
  readonly ingressCa: string | undefined;
  readonly headers: NonNullable<CreatePreviewRequest["headers"]>;
  readonly banner: boolean;
  readonly access: PreviewAccess;
  readonly createdMs: number;
  /** Why its host serves nothing any more. */
  readonly removedWhy: RemovedWhy | undefined;
}

interface Row extends Omit<
  Preview,
  "workload" | "ingress" | "headers" | "insecure" | "ingressCa" | "banner" | "removedWhy"
> {
  readonly workload: string;
  readonly ingress: string;
  readonly headers: string;
  readonly insecure: number;
  readonly ingressCa: string | null;
  readonly banner: number;
  readonly removedMs: number | null;
  readonly removedWhy: RemovedWhy | null;
}

const select = `SELECT previews.id, previews.host, previews.team_id AS "teamId", teams.name AS "teamName",
    previews.cluster_id AS "clusterId", clusters.uid AS "clusterUid", clusters.name AS "clusterName",
    previews.person_id AS "personId", people.name AS "personName", previews.intercept_id AS "interceptId",
    previews.intercept, previews.workload, previews.ingress, previews.insecure, previews.ingress_ca AS "ingressCa", previews.headers, previews.banner,
    previews.access, previews.created_ms AS "createdMs", previews.removed_ms AS "removedMs",
    previews.removed_why AS "removedWhy"
  FROM previews JOIN teams ON teams.id = previews.team_id JOIN clusters ON clusters.id = previews.cluster_id
    JOIN people ON people.id = previews.person_id`;

function toPreview(row: Row): Preview {
  const { removedMs, removedWhy, ...same } = row;
  return {
    ...same,
    workload: JSON.parse(row.workload) as Preview["workload"],
    ingress: JSON.parse(row.ingress) as Preview["ingress"],
    headers: JSON.parse(row.headers) as Preview["headers"],
    insecure: row.insecure !== 0,
    ingressCa: row.ingressCa ?? undefined,
    banner: row.banner !== 0,
    removedWhy: removedMs === null ? undefined : (removedWhy ?? "removed"),
  };
}

export interface NewPreview extends Omit<CreatePreviewRequest, "clusterId" | "team"> {
  readonly personId: string;
  readonly teamId: string;
  /** The row. */
  readonly clusterId: string;
}

/** The same host again for the same intercept of the same person, also after its laptop has come with a new session. */
export async function providePreview(
  database: Database,
  wish: NewPreview,
  nowMs: number,
): Promise<{ readonly preview: Preview; readonly isNew: boolean; readonly before: PreviewAccess }> {
  const values = [
    wish.interceptId,
    wish.intercept,
    JSON.stringify(wish.workload),
    JSON.stringify(wish.ingress),
    wish.insecure === true ? 1 : 0,
    JSON.stringify(wish.headers ?? []),
    wish.banner ? 1 : 0,
    wish.ingressCa ?? null,
  ];
  return database.transaction(async (queries) => {
    const known = await one<{ id: string; access: PreviewAccess }>(
      queries,
      `SELECT id, access FROM previews WHERE cluster_id = $1 AND person_id = $2 AND removed_ms IS NULL
       AND (intercept_id = $3 OR (intercept = $4 AND workload = $5)) ORDER BY created_ms LIMIT 1`,
      [wish.clusterId, wish.personId, ...values.slice(0, 3)],
    );
    const access = wish.access ?? known?.access ?? "team";
    const id = known?.id ?? newId();
    if (known === undefined) {
      await checkCount(queries, wish.personId);
      await queries.run(
        `INSERT INTO previews (intercept_id, intercept, workload, ingress, insecure, headers, banner, ingress_ca, access, live_ms,
           created_ms, id, host, team_id, cluster_id, person_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, $14, $15)`,
        [...values, access, nowMs, id, newHostName(), wish.teamId, wish.clusterId, wish.personId],
      );
    } else {
      await queries.run(
        `UPDATE previews SET intercept_id = $1, intercept = $2, workload = $3, ingress = $4, insecure = $5, headers = $6,
           banner = $7, ingress_ca = $8, access = $9, live_ms = $10 WHERE id = $11`,
        [...values, access, nowMs, id],
      );
    }
    const preview = await findPreview(queries, id);
    if (preview === undefined) throw new AppError("internal", "a preview that was just made is not there");
    return { preview, isNew: known === undefined, before: known?.access ?? "team" };
  });
}

async function checkCount(queries: Queries, personId: string): Promise<void> {
  const count = await one<{ count: number }>(
    queries,
    "SELECT COUNT(*) AS count FROM previews WHERE person_id = $1 AND removed_ms IS NULL",
    [personId],
  );
  if (Number(count?.count) >= maxOfPerson) {
    throw new AppError("conflict", `you have ${maxOfPerson} previews already`, { hint: "remove one first" });
  }
}

export async function findPreview(queries: Queries, id: string): Promise<Preview | undefined> {
  const row = await one<Row>(queries, `${select} WHERE previews.id = $1`, [id]);
  return row && toPreview(row);
}

export async function findPreviewByHost(queries: Queries, host: string): Promise<Preview | undefined> {
  const row = await one<Row>(queries, `${select} WHERE previews.host = $1`, [host]);
  return row && toPreview(row);
}

/** Person by preview, of those that are not removed. */
export async function ownersOf(queries: Queries, clusterId: string): Promise<ReadonlyMap<string, string>> {
  const rows = await queries.all<{ id: string; person_id: string }>(
    "SELECT id, person_id FROM previews WHERE cluster_id = $1 AND removed_ms IS NULL",
    [clusterId],
  );
  return new Map(rows.map(({ id, person_id: personId }) => [id, personId]));
}

/** Those that are not removed. */
export async function previewsOf(queries: Queries, teamIds: readonly string[]): Promise<readonly Preview[]> {
  const where = "WHERE previews.team_id = $1 AND previews.removed_ms IS NULL ORDER BY previews.created_ms";
  const rows = await Promise.all(teamIds.map((id) => queries.all<Row>(`${select} ${where}`, [id])));
  return rows.flat().map(toPreview);
}

/** False when it was removed already. Its visitors and share links go at once. */
export async function removePreview(database: Database, id: string, why: RemovedWhy, nowMs: number): Promise<boolean> {
  return database.transaction(async (queries) => {
    const changed = await queries.run(
      "UPDATE previews SET removed_ms = $1, removed_why = $2 WHERE id = $3 AND removed_ms IS NULL",
      [nowMs, why, id],
    );
    await queries.run("DELETE FROM preview_visitors WHERE preview_id = $1", [id]);
    await queries.run("DELETE FROM preview_shares WHERE preview_id = $1", [id]);
    await queries.run("DELETE FROM preview_visits WHERE preview_id = $1", [id]);
    return changed > 0;
  });
}

export async function setAccess(queries: Queries, id: string, access: PreviewAccess): Promise<void> {
  await queries.run("UPDATE previews SET access = $1 WHERE id = $2", [access, id]);
}

/** Their manager has told of them. */
export async function noteLive(
  queries: Queries,
  clusterId: string,
  ids: readonly string[],
  nowMs: number,
): Promise<void> {
  for (const id of ids) {
    await queries.run("UPDATE previews SET live_ms = $1 WHERE id = $2 AND cluster_id = $3", [nowMs, id, clusterId]);
  }
}

/** Removes what has slept for too long, and forgets what was removed long ago. */
export async function tidyPreviews(database: Database, nowMs: number): Promise<void> {
  const asleep = await database.all<{ id: string }>(
    "SELECT id FROM previews WHERE removed_ms IS NULL AND live_ms < $1",
    [nowMs - asleepMs],
  );
  for (const { id } of asleep) await removePreview(database, id, "expired", nowMs);
  await database.run("DELETE FROM previews WHERE removed_ms < $1", [nowMs - removedMs]);
  for (const table of ["preview_codes", "preview_visitors", "preview_shares"]) {
    await database.run(`DELETE FROM ${table} WHERE expires_ms < $1`, [nowMs]);
  }
}
