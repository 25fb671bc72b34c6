// What laptops and the dashboard ask of previews. All of a team see them; whose they are, and administrators, change them.
import type { z } from "zod";
import { AppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import type { AuditAction } from "#cloud/audit.ts";
import { chooseTeam, findCluster } from "#cloud/clusters/clusters.ts";
import type { Person } from "#cloud/identity/people.ts";
import { visibleTeams } from "#cloud/identity/people.ts";
import { readJson } from "#cloud/web/json.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf } from "#cloud/web/route.ts";
import { cloudPaths, createPreviewRequest, previewAccessRequest, shareRequest } from "#wire/cloud-api.ts";
import type { PreviewView, ShareView, previewList, shareList } from "#wire/cloud-api.ts";
import { findPreview, previewsOf, providePreview, removePreview, setAccess } from "./previews.ts";
import type { Preview } from "./previews.ts";
import { mayAdd, shareParameter } from "./request-headers.ts";
import { mayVisit, newShare, removeShare, sharesOf } from "./visitors.ts";

const path = cloudPaths.previews;

export function previewRoutes(parts: Parts): readonly Route[] {
  const route = (
    method: Route["method"],
    below: string,
    handle: (context: RequestContext, of: Parts) => Promise<Response>,
  ): Route => ({ method, path: path + below, access: "person", handle: (context) => handle(context, parts) });
  return [
    route("POST", "", create),
    route("GET", "", async (context) =>
      context.json({ previews: await listPreviews(parts, callerOf(context)) } satisfies z.infer<typeof previewList>),
    ),
    route("GET", "/:id", async (context) => context.json(viewOf(await findVisible(context, parts), parts))),
    route("DELETE", "/:id", remove),
    route("POST", "/:id/access", changeAccess),
    route("GET", "/:id/shares", shares),
    route("POST", "/:id/shares", share),
    route("DELETE", "/:id/shares/:share", unshare),
  ];
}

/** Of the teams whose things this person sees. */
export async function listPreviews(parts: Parts, person: Person): Promise<PreviewView[]> {
  const teams = await visibleTeams(parts.database, person);
  const all = await previewsOf(
    parts.database,
    teams.map(({ id }) => id),
  );
  return all.map((preview) => viewOf(preview, parts));
}

function viewOf(preview: Preview, { previews }: Parts): PreviewView {
  const { id, host, ingress, insecure, headers, banner, access, createdMs, workload, intercept, interceptId } = preview;
  const origin = previews.originOf(host);
  return {
    id,
    url: origin.origin,
    host: origin.hostname,
    clusterId: preview.clusterUid,
    cluster: preview.clusterName,
    team: { id: preview.teamId, name: preview.teamName },
    owner: { id: preview.personId, name: preview.personName },
    interceptId,
    intercept,
    workload,
    ingress,
    insecure,
    headers,
    banner,
    access,
    state: previews.isServed(preview) ? "live" : "sleeping",
    createdMs,
    visitors: previews.visits.of(id),
  };
}

async function create(context: RequestContext, parts: Parts): Promise<Response> {
  const { database, clock, config, previews } = parts;
  const person = callerOf(context);
  const { clusterId, team: wanted, ...wish } = await readJson(context, createPreviewRequest);
  if (config.previewDomain === undefined) {
    throw new AppError("unsupported", "this server has no previews", { hint: "start it with --preview-domain" });
  }
  const team = chooseTeam(person, wanted);
  const cluster = await findCluster(database, clusterId, [team.id]);
  if (cluster === undefined) throw new AppError("not_found", `the team ${team.name} has no such cluster`);
  const refused = wish.headers?.find(({ name }) => !mayAdd(name));
  if (refused !== undefined) throw new AppError("usage", `a preview cannot add the header ${refused.name}`);
  const nowMs = clock.wallMs();
  const { preview, isNew, before } = await providePreview(
    database,
    { ...wish, personId: person.id, teamId: team.id, clusterId: cluster.id },
    nowMs,
  );
  previews.changed(preview);
  if (isNew) await note(parts, preview, person, "preview.created");
  if (preview.access !== before) await noteAccess(parts, preview, person);
  return context.json(viewOf(preview, parts));
}

async function remove(context: RequestContext, parts: Parts): Promise<Response> {
  const { preview, person } = await findOwn(context, parts);
  await removePreview(parts.database, preview.id, "removed", parts.clock.wallMs());
  parts.previews.changed(preview);
  parts.previews.visits.forget(preview.id);
  await note(parts, preview, person, "preview.removed");
  return context.json({});
}

async function changeAccess(context: RequestContext, parts: Parts): Promise<Response> {
  const { preview, person } = await findOwn(context, parts);
  const { access } = await readJson(context, previewAccessRequest);
  await setAccess(parts.database, preview.id, access);
  parts.previews.changed(preview);
  await noteAccess(parts, { ...preview, access }, person);
  return context.json(viewOf({ ...preview, access }, parts));
}

function noteAccess(parts: Parts, preview: Preview, person: Person): Promise<void> {
  return note(parts, preview, person, preview.access === "public" ? "preview.public" : "preview.private");
}

async function shares(context: RequestContext, parts: Parts): Promise<Response> {
  const { preview } = await findOwn(context, parts);
  const all = await sharesOf(parts.database, preview.id, parts.clock.wallMs());
  return context.json({ shares: [...all] } satisfies z.infer<typeof shareList>);
}

async function share(context: RequestContext, parts: Parts): Promise<Response> {
  const { database, clock, previews } = parts;
  const { preview, person } = await findOwn(context, parts);
  const { expiresInSeconds } = await readJson(context, shareRequest);
  const [nowMs, lastsMs] = [clock.wallMs(), expiresInSeconds * 1000];
  const { id, token } = await newShare(database, { previewId: preview.id, personId: person.id, lastsMs }, nowMs);
  const url = previews.originOf(preview.host);
  url.searchParams.set(shareParameter, token);
  await note(parts, preview, person, "preview.shared");
  const view = { id, url: url.href, by: person.name, createdMs: nowMs, expiresMs: nowMs + lastsMs };
  return context.json(view satisfies ShareView);
}

async function unshare(context: RequestContext, parts: Parts): Promise<Response> {
  const { preview, person } = await findOwn(context, parts);
  if (!(await removeShare(parts.database, preview.id, context.req.param("share") ?? ""))) {
    throw new AppError("not_found", "the preview has no such share link");
  }
  parts.previews.changed(preview);
  await note(parts, preview, person, "preview.unshared");
  return context.json({});
}

async function note(parts: Parts, { teamId, intercept }: Preview, person: Person, action: AuditAction): Promise<void> {
  await audit(parts.database, { action, teamId, person, subject: intercept }, parts.clock.wallMs());
}

/** Another team's does not exist. */
async function findVisible(context: RequestContext, { database }: Parts): Promise<Preview> {
  const preview = await findPreview(database, context.req.param("id") ?? "");
  if (preview !== undefined && preview.removedWhy === undefined && mayVisit(callerOf(context), preview)) return preview;
  throw new AppError("not_found", "there is no such preview");
}

async function findOwn(
  context: RequestContext,
  parts: Parts,
): Promise<{ readonly preview: Preview; readonly person: Person }> {
  const preview = await findVisible(context, parts);
  const person = callerOf(context);
  if (preview.personId === person.id || person.admin) return { preview, person };
  throw new AppError("denied", `the preview is ${preview.personName}'s; they or an administrator may change it`);
}
