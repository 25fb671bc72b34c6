// `preview create|remove|list|share|public|private`: what others see of one's own intercept by a cloud server. `create` and
// `remove` go by the daemon, which tells the traffic-manager; the others are between this command and the server.
import { AppError } from "#base/error.ts";
import { loginUse } from "#cli/cloud/login-use.ts";
import {
  readAddedHeaders,
  readExpiry,
  readIngressCa,
  readIngressFlags,
  type PreviewFlags,
} from "#cli/cloud/preview-flags.ts";
import { makePreview, settleIngress } from "#cli/cloud/preview-making.ts";
import { requireLogin } from "#cli/cloud/required-login.ts";
import { connectIfNeeded, statusLimitMs } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { openDaemon } from "#cli/connection/daemon-socket.ts";
import { askAll } from "./status.ts";
import { formatIntercept } from "#cli/texts/intercept.ts";
import { formatPreviews, formatShare, shareToJson, viewToJson } from "#cli/texts/preview.ts";
import { CloudClient, type CloudCall } from "#login/cloud-client.ts";
import { currentLogin } from "#login/current-login.ts";
import {
  cloudPaths,
  previewList,
  previewView,
  shareList,
  shareView,
  type PreviewAccess,
  type PreviewView,
} from "#wire/cloud-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { z } from "zod";

export interface CreateFlags extends PreviewFlags {
  readonly public?: boolean;
}

export interface ShareFlags {
  readonly expires?: string;
  readonly list?: boolean;
  /** `true` for all of them. */
  readonly revoke?: true | string;
}

/** chosen: the traffic-manager and the cloud server answer. */
const removeLimitMs = 30_000;
const defaultExpiry = "24h";

export async function runPreviewCreate(context: CommandContext, name: string, flags: CreateFlags): Promise<number> {
  readIngressFlags(flags); // before anything is started
  readAddedHeaders(flags);
  const ingressCa = readIngressCa(flags, context.environment.cwd);
  await requireLogin(context);
  const info = await findOwn(context, name);
  using connected = await connectIfNeeded(context);
  const { workload, ports } = info.spec;
  const target = {
    name,
    workload: workload.name,
    kind: workload.kind,
    namespace: workload.namespace,
    ports: ports.map((port) => `${port.targetPort}:${port.servicePortName ?? port.servicePort ?? port.containerPort}`),
  };
  const ingress = await settleIngress(context, connected, target, flags);
  const access = flags.public === true ? { access: "public" as const } : {};
  const order = { intercept: name, namespace: context.flags.namespace, ingress, ingressCa, ...access };
  const { id, url, access: openTo } = await makePreview(context, connected, order, flags);
  const shown = { ...info, preview: { id, url, ...(ingress.l5host === undefined ? {} : { l5host: ingress.l5host }) } };
  context.output.lines(["intercepted", ...formatIntercept(shown, { debug: false, foreign: false })]);
  context.output.data({ id, intercept: name, preview_url: url, access: openTo ?? "team", ingress });
  return 0;
}

/** Nothing is connected for it: who is not has no intercept. */
async function findOwn(context: CommandContext, name: string): Promise<InterceptInfo> {
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  const { namespace } = context.flags;
  const found = status?.intercepts.find(
    ({ spec }) => spec.name === name && (namespace === undefined || spec.workload.namespace === namespace),
  );
  if (found !== undefined) return found;
  throw new AppError("intercept_not_found", `you have no intercept named ${name}`, {
    hint: `begin it: telepresence intercept ${name} --preview-url`,
  });
}

export async function runPreviewRemove(context: CommandContext, name: string): Promise<number> {
  await requireLogin(context);
  const view = await findPreview(context, name);
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  const own = status?.intercepts.find(({ preview }) => preview?.id === view.id);
  if (daemon !== undefined && own !== undefined) {
    await daemon.client.call("removePreview", { intercept: own.spec.name }, removeLimitMs);
  } else {
    await callCloud(context, { method: "DELETE", path: pathOf(view) }, z.unknown());
  }
  context.output.line(`Removed preview ${view.url} of intercept ${view.intercept}`);
  context.output.data({ removed: viewToJson(view) });
  return 0;
}

export async function runPreviewList(context: CommandContext): Promise<number> {
  await requireLogin(context);
  const { previews } = await callCloud(context, { method: "GET", path: cloudPaths.previews }, previewList);
  context.output.lines(formatPreviews(previews));
  context.output.data(previews.map(viewToJson));
  return 0;
}

export async function runPreviewAccess(context: CommandContext, name: string, access: PreviewAccess): Promise<number> {
  await requireLogin(context);
  const found = await findPreview(context, name);
  const call = { method: "POST", path: `${pathOf(found)}/access`, body: { access } } as const;
  const view = await callCloud(context, call, previewView);
  const who = view.access === "public" ? "anybody who has the address" : "people of the team, who log in";
  context.output.line(`${view.url} is open to ${who}`);
  context.output.data(viewToJson(view));
  return 0;
}

export async function runPreviewShare(context: CommandContext, name: string, flags: ShareFlags): Promise<number> {
  const { expires = defaultExpiry, list, revoke } = flags;
  const expiresInSeconds = readExpiry(expires);
  if (list === true && revoke !== undefined) throw new AppError("usage", "--list and --revoke exclude each other");
  await requireLogin(context);
  const path = `${pathOf(await findPreview(context, name))}/shares`;
  if (revoke !== undefined) await revokeShares(context, { name, path }, revoke);
  else if (list === true) await listShares(context, path);
  else {
    const share = await callCloud(context, { method: "POST", path, body: { expiresInSeconds } }, shareView);
    context.output.line(`Who has this link gets in until ${new Date(share.expiresMs).toISOString()}:`);
    context.output.line(share.url ?? "");
    context.output.data(shareToJson(share));
  }
  return 0;
}

async function listShares(context: CommandContext, path: string): Promise<void> {
  const { shares } = await callCloud(context, { method: "GET", path }, shareList);
  context.output.lines(shares.length === 0 ? ["No share links"] : shares.map(formatShare));
  context.output.data(shares.map(shareToJson));
}

async function revokeShares(
  context: CommandContext,
  { name, path }: { readonly name: string; readonly path: string },
  which: true | string,
): Promise<void> {
  const { shares } = await callCloud(context, { method: "GET", path }, shareList);
  const meant = shares.filter(({ id }) => which === true || id === which);
  if (meant.length === 0) {
    throw new AppError("not_found", `${name} has no ${which === true ? "share links" : `share link ${which}`}`, {
      hint: `see them: telepresence preview share ${name} --list`,
    });
  }
  for (const { id } of meant) await callCloud(context, { method: "DELETE", path: `${path}/${id}` }, z.unknown());
  const links = meant.length === 1 ? "one share link" : `${meant.length} share links`;
  context.output.line(`Revoked ${links} of ${name}`);
  context.output.data({ revoked: meant.map(({ id }) => id) });
}

const pathOf = ({ id }: PreviewView): string => `${cloudPaths.previews}/${id}`;

/** By the intercept's name, the preview's host or its first word, or its id. One's own come first. */
async function findPreview(context: CommandContext, name: string): Promise<PreviewView> {
  const { previews } = await callCloud(context, { method: "GET", path: cloudPaths.previews }, previewList);
  const called = previews.filter(({ id, host, intercept }) => [id, host, host.split(".")[0], intercept].includes(name));
  const [first, second] = called;
  if (first === undefined) {
    throw new AppError("not_found", `there is no preview of ${name}`, {
      hint: `make one: telepresence preview create ${name}`,
    });
  }
  if (second === undefined) return first;
  const own = await ownPreviews(context);
  const mine = called.filter(({ id }) => own.has(id));
  if (mine[0] !== undefined && mine.length === 1) return mine[0];
  throw new AppError("ambiguous", `there are ${called.length} previews of ${name}`, {
    hint: `name one by its host: ${called.map(({ host, owner }) => `${host} (${owner.name})`).join(", ")}`,
  });
}

async function ownPreviews(context: CommandContext): Promise<ReadonlySet<string>> {
  const statuses = await askAll(context);
  return new Set(
    statuses.flatMap(({ status }) => status?.intercepts ?? []).flatMap(({ preview }) => preview?.id ?? []),
  );
}

async function callCloud<T>(context: CommandContext, call: CloudCall, schema: z.ZodType<T>): Promise<T> {
  const { clock, interrupts } = context;
  const login = await currentLogin(await loginUse(context));
  if (login === undefined) throw new AppError("unauthorized", "nobody is logged in at a cloud server here");
  const client = new CloudClient({ url: login.url, clock, signal: interrupts.signal });
  return await client.call(call, login.token, schema);
}
