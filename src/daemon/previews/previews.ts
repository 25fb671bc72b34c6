// Previews of one's own intercepts: made at the cloud server, then told to the traffic-manager, which dials for them. A
// new session has its own id and nothing of the old one's previews, so they are made and told again; their hosts stay.
// They end with their intercepts, by the manager's word to the cloud server.
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { z } from "zod";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import { cloudPaths, previewView, type CreatePreviewRequest, type PreviewView } from "#wire/cloud-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { CreatedPreview, previewControlApi } from "#wire/preview.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import type { Membership } from "./membership.ts";

export type PreviewWish = ParamsOf<typeof previewControlApi, "createPreview">;

/** One's own intercept, and what its personal header says. */
export interface PreviewedIntercept {
  readonly info: InterceptInfo;
  readonly personalId: string;
}

export interface PreviewsOptions {
  readonly membership: Pick<Membership, "call" | "join" | "settle" | "status">;
  readonly find: (name: string) => PreviewedIntercept | undefined;
  readonly manager: () => ManagerConnection | undefined;
  readonly log: Logger;
}

interface Kept {
  readonly request: CreatePreviewRequest;
  view: Pick<PreviewView, "id" | "url" | "access">;
  /** The session in which the manager was told. */
  sessionId: string;
  problem: string | undefined;
}

export class Previews {
  readonly #options: PreviewsOptions;
  readonly #kept = new Map<string, Kept>();

  constructor(options: PreviewsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#kept.size;
  }

  /** `progress` hears what takes a while. */
  async create(wish: PreviewWish, progress: (text: string) => void, signal: AbortSignal): Promise<CreatedPreview> {
    const { membership, manager } = this.#options;
    const { intercept, namespace: _namespace, team, ...how } = wish;
    const { personalId, info } = this.#find(wish);
    const cluster = await membership.join(team, signal);
    const { workload } = info.spec;
    const request = {
      clusterId: cluster.id,
      team: cluster.team.id,
      interceptId: personalId,
      intercept,
      workload,
      ...how,
    };
    const view = await this.#post(request, signal);
    const current = manager();
    try {
      if (current === undefined) throw new AppError("link_lost", "the link to the traffic-manager was lost meanwhile");
      await put(current, view, { request, interceptId: info.id }, signal);
    } catch (error) {
      await this.#delete(view.id, signal).catch(() => undefined); // the first error counts
      throw error;
    }
    this.#kept.set(intercept, { request, view, sessionId: current.arrival.sessionId, problem: undefined });
    await membership.settle(progress, signal);
    const { id, url, access } = view;
    return { id, url, access, warnings: this.#warnings() };
  }

  async remove(name: string, signal: AbortSignal): Promise<void> {
    const kept = this.#kept.get(name);
    if (kept === undefined) {
      throw new AppError("not_found", `the intercept ${name} has no preview`, {
        hint: "see `telepresence preview list`",
      });
    }
    await this.#delete(kept.view.id, signal);
    this.#kept.delete(name);
    await this.#options.manager()?.rpc.call("preview.remove", { previewId: kept.view.id }, signal);
  }

  /** What is known of their previews, for `list` and `status`. */
  decorate(infos: readonly InterceptInfo[]): readonly InterceptInfo[] {
    if (this.#kept.size === 0) return infos;
    return infos.map((info) => {
      const kept = this.#kept.get(info.spec.name);
      if (kept === undefined) return info;
      const { l5host } = kept.request.ingress;
      const problem = kept.problem ?? this.#warnings()[0];
      return {
        ...info,
        preview: {
          id: kept.view.id,
          url: kept.view.url,
          ...(l5host === undefined ? {} : { l5host }),
          ...(problem === undefined ? {} : { problem }),
        },
      };
    });
  }

  /** Those of intercepts that are over go with them. */
  onChange(infos: readonly InterceptInfo[]): void {
    const names = new Set(infos.map(({ spec }) => spec.name));
    for (const name of this.#kept.keys()) if (!names.has(name)) this.#kept.delete(name);
  }

  /** After joining, and now and then: what is not as it was at either end is made so, or forgotten. */
  async restore(signal: AbortSignal): Promise<void> {
    for (const [name, kept] of this.#kept) {
      try {
        await this.#restoreOne(name, kept, signal);
        kept.problem = undefined;
      } catch (error) {
        signal.throwIfAborted();
        kept.problem = toAppError(error).message;
        this.#options.log.warn("a preview could not be renewed", { name, error: kept.problem });
      }
    }
  }

  async #restoreOne(name: string, kept: Kept, signal: AbortSignal): Promise<void> {
    const own = this.#options.find(name);
    const manager = this.#options.manager();
    if (own === undefined || manager === undefined) return;
    const { sessionId } = manager.arrival;
    if (sessionId === kept.sessionId) {
      const known = await this.#read(kept.view.id, signal);
      // Somebody has removed it, by the dashboard say.
      if (known === undefined) {
        if (this.#kept.get(name) === kept) this.#kept.delete(name);
        return;
      }
      kept.view = known;
    } else {
      kept.view = await this.#post({ ...kept.request, access: kept.view.access }, signal);
    }
    await put(manager, kept.view, { request: kept.request, interceptId: own.info.id }, signal);
    kept.sessionId = sessionId;
  }

  #find({ intercept, namespace }: PreviewWish): PreviewedIntercept {
    const found = this.#options.find(intercept);
    if (found === undefined || (namespace !== undefined && found.info.spec.workload.namespace !== namespace)) {
      throw new AppError("intercept_not_found", `you have no intercept named ${intercept}`, {
        hint: `begin it: telepresence intercept ${intercept} --preview-url`,
      });
    }
    if (found.info.spec.kind !== "wiretap") return found;
    throw new AppError("unsupported", `${intercept} is a wiretap, whose requests the application answers`, {
      hint: "a preview wants an intercept",
    });
  }

  /** Why nobody gets in yet. */
  #warnings(): string[] {
    const { status } = this.#options.membership;
    if (status === undefined || status.state === "connected") return [];
    const why = status.message === "" ? "" : `: ${status.message}`;
    return [`the traffic-manager has not reached the cloud server at ${status.url} yet, so the preview sleeps${why}`];
  }

  #post(body: CreatePreviewRequest, signal: AbortSignal): Promise<PreviewView> {
    return this.#options.membership.call({ method: "POST", path: cloudPaths.previews, body }, previewView, signal);
  }

  async #delete(id: string, signal: AbortSignal): Promise<void> {
    const path = `${cloudPaths.previews}/${id}`;
    try {
      await this.#options.membership.call({ method: "DELETE", path }, z.unknown(), signal);
    } catch (error) {
      if (!isAppError(error, "not_found")) throw error; // else somebody was quicker
    }
  }

  async #read(id: string, signal: AbortSignal): Promise<PreviewView | undefined> {
    const path = `${cloudPaths.previews}/${id}`;
    try {
      return await this.#options.membership.call({ method: "GET", path }, previewView, signal);
    } catch (error) {
      if (isAppError(error, "not_found")) return undefined;
      throw error;
    }
  }
}

async function put(
  { rpc }: ManagerConnection,
  { id: previewId }: Pick<PreviewView, "id">,
  { request, interceptId }: { readonly request: CreatePreviewRequest; readonly interceptId: string },
  signal: AbortSignal,
): Promise<void> {
  const { host, port } = request.ingress;
  await rpc.call("preview.put", { previewId, interceptId, ingress: { host, port } }, signal);
}
