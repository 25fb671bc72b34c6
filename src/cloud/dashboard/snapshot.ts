// What the dashboard shows one person: the clusters, intercepts, previews and people of their teams, for an
// administrator everybody's.
import { createHash } from "node:crypto";
import { listClusters } from "#cloud/clusters/cluster-routes.ts";
import type { Person } from "#cloud/identity/people.ts";
import { listPreviews } from "#cloud/previews/preview-routes.ts";
import { visibleTeams } from "#cloud/identity/people.ts";
import type { Queries } from "#cloud/storage/database.ts";
import type { Parts } from "#cloud/web/route.ts";
import type { ClusterView, PreviewView } from "#wire/cloud-api.ts";
import type { DashboardPerson, DashboardSnapshot } from "#wire/dashboard-api.ts";

/** Whoever knows clusters and previews. */
export interface DashboardSources {
  readonly clusters: (person: Person) => Promise<readonly ClusterView[]>;
  readonly previews: (person: Person) => Promise<readonly PreviewView[]>;
}

export function dashboardSources(parts: Parts): DashboardSources {
  return { clusters: (person) => listClusters(parts, person), previews: (person) => listPreviews(parts, person) };
}

/** chosen: a page of people with all of them is /people. */
const maxPeople = 2000;

export async function takeSnapshot(
  { database, traffic }: Parts,
  sources: DashboardSources,
  person: Person,
): Promise<Omit<DashboardSnapshot, "csrf">> {
  const [clusters, previews, people] = [
    await sources.clusters(person),
    await sources.previews(person),
    await peopleAround(database, person),
  ];
  const { id, name, admin } = person;
  const seen = {
    me: { id, name, admin },
    clusters,
    previews,
    people,
    traffic: traffic.view(previews.map((preview) => preview.id)),
  };
  const revision = createHash("sha256").update(JSON.stringify(seen)).digest("base64url").slice(0, 22);
  return { revision, ...seen };
}

interface MemberRow {
  readonly id: string;
  readonly name: string;
  readonly admin: number;
  readonly teamId: string;
  readonly teamName: string;
}

async function peopleAround(queries: Queries, person: Person): Promise<readonly DashboardPerson[]> {
  const teams = await visibleTeams(queries, person);
  if (teams.length === 0) return [];
  const places = person.admin ? "" : `WHERE teams.id IN (${teams.map((_, at) => `$${at + 1}`).join(", ")})`;
  const rows = await queries.all<MemberRow>(
    `SELECT people.id, people.name, people.admin, teams.id AS "teamId", teams.name AS "teamName"
     FROM people JOIN members ON members.person_id = people.id JOIN teams ON teams.id = members.team_id ${places}
     ORDER BY lower(people.name), people.id, teams.name LIMIT ${maxPeople}`,
    person.admin ? [] : teams.map((team) => team.id),
  );
  const byPerson = Map.groupBy(rows, (row) => row.id);
  return [...byPerson].flatMap(([id, [first, ...more]]) => {
    if (first === undefined) return [];
    const their = [first, ...more].map(({ teamId, teamName }) => ({ id: teamId, name: teamName }));
    return [{ id, name: first.name, admin: first.admin !== 0, teams: their }];
  });
}
