// What laptops and the dashboard ask of clusters.
import type { z } from "zod";
import { AppError } from "#base/error.ts";
import { deadline } from "#base/abort.ts";
import { audit } from "#cloud/audit.ts";
import type { Person } from "#cloud/identity/people.ts";
import { visibleTeams } from "#cloud/identity/people.ts";
import { readJson } from "#cloud/web/json.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf } from "#cloud/web/route.ts";
import { cloudPaths, registerClusterRequest } from "#wire/cloud-api.ts";
import type { ClusterView, RegisterClusterAnswer, clusterList } from "#wire/cloud-api.ts";
import { chooseTeam, clustersOf, joinedPeople, newClusterToken, ownerOfBearer, provideCluster } from "./clusters.ts";
import type { Cluster } from "./clusters.ts";

/** chosen: agents are waited for two seconds by the manager. */
const endMs = 10_000;

export function clusterRoutes(parts: Parts): readonly Route[] {
  return [
    { method: "POST", path: cloudPaths.clusters, access: "person", handle: (context) => register(context, parts) },
    {
      method: "GET",
      path: cloudPaths.clusters,
      access: "person",
      handle: async (context) =>
        context.json({ clusters: await listClusters(parts, callerOf(context)) } satisfies z.infer<typeof clusterList>),
    },
    {
      method: "DELETE",
      path: `${cloudPaths.clusters}/:id/intercepts/:intercept`,
      access: "person",
      handle: (context) => endIntercept(context, parts),
    },
  ];
}

/** Of the teams whose things this person sees. */
export async function listClusters(parts: Parts, person: Person): Promise<ClusterView[]> {
  const teams = await visibleTeams(parts.database, person);
  const all = await clustersOf(
    parts.database,
    teams.map(({ id }) => id),
  );
  return Promise.all(all.map((cluster) => viewCluster(parts, cluster, person)));
}

async function viewCluster({ database, live }: Parts, cluster: Cluster, person: Person): Promise<ClusterView> {
  const people = await joinedPeople(database, cluster.id);
  const version = live.version(cluster.id);
  return {
    id: cluster.uid,
    name: cluster.name,
    team: { id: cluster.teamId, name: cluster.teamName },
    live: live.isLive(cluster.id),
    ...(version === undefined ? {} : { managerVersion: version }),
    intercepts: live.intercepts(cluster.id).map(({ joinedBy, ...intercept }) => {
      const owner = people.get(joinedBy);
      return { ...intercept, own: owner?.id === person.id, ...(owner === undefined ? {} : { owner }) };
    }),
    more: live.more(cluster.id),
  };
}

async function register(context: RequestContext, { database, clock }: Parts): Promise<Response> {
  const person = callerOf(context);
  const wish = await readJson(context, registerClusterRequest);
  const bearer = /^Bearer (\S+)$/.exec(context.req.header("authorization") ?? "")?.[1] ?? "";
  const owner = await ownerOfBearer(database, bearer, person.id);
  if (owner === undefined) throw new AppError("denied", "a cluster is registered by a laptop that is logged in");
  const team = chooseTeam(person, wish.team);
  const nowMs = clock.wallMs();
  const { cluster, isNew } = await provideCluster(database, { teamId: team.id, uid: wish.id, name: wish.name }, nowMs);
  const token = await newClusterToken(database, cluster.id, owner, nowMs);
  if (isNew) {
    await audit(database, { action: "cluster.registered", teamId: team.id, person, subject: cluster.name }, nowMs);
  }
  return context.json({ id: cluster.uid, name: cluster.name, team, token } satisfies RegisterClusterAnswer);
}

/** One's own, or anybody's for an administrator. */
async function endIntercept(context: RequestContext, parts: Parts): Promise<Response> {
  const { database, clock, live } = parts;
  const person = callerOf(context);
  const [uid, interceptId] = [context.req.param("id") ?? "", context.req.param("intercept") ?? ""];
  const teams = await visibleTeams(database, person);
  const clusters = (
    await clustersOf(
      database,
      teams.map(({ id }) => id),
    )
  ).filter((cluster) => cluster.uid === uid);
  for (const cluster of clusters) {
    const people = await joinedPeople(database, cluster.id);
    const found = live.find(cluster.id, interceptId, (joinedBy) => people.get(joinedBy)?.id === person.id);
    if (found === undefined) continue;
    const { intercept, tunnel } = found;
    const owner = people.get(intercept.joinedBy);
    if (owner?.id !== person.id && !person.admin) {
      throw new AppError("denied", `the intercept is ${owner?.name ?? "somebody else"}'s; an administrator may end it`);
    }
    using limit = deadline(clock, endMs, "the manager's answer");
    await tunnel.endIntercept(interceptId, `${person.name} (at the cloud server)`, limit.signal);
    const entry = { action: "intercept.ended", teamId: cluster.teamId, person, subject: intercept.name } as const;
    await audit(database, entry, clock.wallMs());
    return context.json({});
  }
  throw new AppError("not_found", "there is no such intercept");
}
