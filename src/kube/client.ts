// The typed calls that this product makes on the API. `openKube` does not talk to the server; the first call does.
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { systemClock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import type { RunCommand } from "./auth.ts";
import type { KubeObject, Resource } from "./objects.ts";
import { resourcePath } from "./objects.ts";
import { orUndefined } from "./refusals.ts";
import type { KubeAction } from "./status.ts";
import { forbidden, statusError } from "./status.ts";
import type { KubeTarget } from "./target.ts";
import type { RawRequest } from "./transport.ts";
import { KubeTransport } from "./transport.ts";

/** Where an object is; `namespace` is left out for kinds of the whole cluster. */
export interface ObjectRef {
  readonly namespace?: string | undefined;
  readonly name: string;
}

export interface ListQuery {
  /** All namespaces when left out. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  /** A sample: no further page is read once this many are there. */
  readonly atLeast?: number | undefined;
}

export interface KubeList<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

export interface WriteOptions {
  readonly dryRun?: boolean;
}

export interface ServerVersion {
  readonly major: number;
  readonly minor: number;
  readonly gitVersion: string;
}

export interface OpenKubeOptions {
  readonly clock?: Clock;
  /** Runs credential plugins (host/); without it a kubeconfig with an exec plugin is refused. */
  readonly runCommand?: RunCommand;
}

/** Bound of one call when `--request-timeout` gives none. Chosen: above a slow aggregated API, below a user's patience. */
const requestMs = 30_000;
const pageSize = 500;
const maxBusyRetries = 3;
const fieldManager = "telepresence";

export function openKube(target: KubeTarget, options: OpenKubeOptions = {}): Kube {
  const clock = options.clock ?? systemClock;
  return new Kube(new KubeTransport(target, { clock, runCommand: options.runCommand }));
}

export class Kube {
  readonly transport: KubeTransport;
  #version: ServerVersion | undefined;

  constructor(transport: KubeTransport) {
    this.transport = transport;
  }

  get target(): KubeTarget {
    return this.transport.target;
  }
  get clock(): Clock {
    return this.transport.clock;
  }
  /** Namespace of the connection. */
  get namespace(): string {
    return this.target.namespace;
  }

  async get<T extends KubeObject>(kind: Resource<T>, ref: ObjectRef, signal: AbortSignal): Promise<T> {
    const path = resourcePath(kind, ref.namespace, ref.name);
    return await this.#json<T>({ method: "GET", path }, actionOn("get", kind, ref), signal);
  }

  /** Undefined when there is none. */
  async find<T extends KubeObject>(kind: Resource<T>, ref: ObjectRef, signal: AbortSignal): Promise<T | undefined> {
    return await this.get(kind, ref, signal).catch(undefinedWhenMissing);
  }

  /** The same by a list: who may list a kind, and follow it, may not always get one. */
  async findListed<T extends KubeObject>(
    kind: Resource<T>,
    { namespace, name }: ObjectRef,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    return (await this.list(kind, { namespace, fieldSelector: `metadata.name=${name}` }, signal)).items[0];
  }

  /** All pages. Throws `not_found` when the server does not know the kind. */
  async list<T extends KubeObject>(kind: Resource<T>, query: ListQuery, signal: AbortSignal): Promise<KubeList<T>> {
    const items: T[] = [];
    let resourceVersion = "";
    let next: string | undefined;
    do {
      const path = `${resourcePath(kind, query.namespace)}?${listParams(query, { limit: String(pageSize), continue: next })}`;
      const action = actionOn("list", kind, { namespace: query.namespace });
      const page = await this.#json<ListPage<T>>({ method: "GET", path }, action, signal);
      // Items of a list carry neither apiVersion nor kind.
      for (const item of page.items ?? []) items.push({ ...item, kind: kind.kind });
      resourceVersion = page.metadata?.resourceVersion ?? "";
      next = page.metadata?.continue === "" ? undefined : page.metadata?.continue;
    } while (next !== undefined && items.length < (query.atLeast ?? Number.POSITIVE_INFINITY));
    return { items, resourceVersion };
  }

  async create<T extends KubeObject>(
    kind: Resource<T>,
    object: T,
    signal: AbortSignal,
    options: WriteOptions = {},
  ): Promise<T> {
    const { namespace, name } = object.metadata;
    const path = `${resourcePath(kind, namespace)}?${writeParams(options)}`;
    const body = jsonBody("application/json", object);
    return await this.#json<T>({ method: "POST", path, body }, actionOn("create", kind, { namespace, name }), signal);
  }

  /** JSON merge patch; a `metadata.resourceVersion` in it is a precondition (`conflict` when it does not hold). */
  async patch<T extends KubeObject>(kind: Resource<T>, ref: ObjectRef, patch: object, signal: AbortSignal): Promise<T> {
    const path = `${resourcePath(kind, ref.namespace, ref.name)}?${writeParams({})}`;
    const body = jsonBody("application/merge-patch+json", patch);
    return await this.#json<T>({ method: "PATCH", path, body }, actionOn("patch", kind, ref), signal);
  }

  /**
   * Server-side apply: made, or brought to these fields, which are `manager`'s from then on. `conflict` when one of them
   * is another's.
   */
  async apply<T extends KubeObject>(kind: Resource<T>, object: T, manager: string, signal: AbortSignal): Promise<T> {
    const { namespace, name } = object.metadata;
    const path = `${resourcePath(kind, namespace, name)}?${new URLSearchParams({ fieldManager: manager })}`;
    const body = jsonBody("application/apply-patch+yaml", object); // JSON is YAML
    return await this.#json<T>({ method: "PATCH", path, body }, actionOn("patch", kind, { namespace, name }), signal);
  }

  /**
   * Strategic merge patch of a part with an address of its own, such as a pod's ephemeral containers: lists are merged
   * by their items' names on the server, so that it needs no precondition.
   */
  async patchSubresource<T extends KubeObject>(
    of: { readonly kind: Resource<T>; readonly ref: ObjectRef; readonly subresource: string },
    patch: object,
    signal: AbortSignal,
    options: WriteOptions = {},
  ): Promise<T> {
    const { kind, ref, subresource } = of;
    const path = `${resourcePath(kind, ref.namespace, ref.name)}/${subresource}?${writeParams(options)}`;
    const body = jsonBody("application/strategic-merge-patch+json", patch);
    const action = { ...actionOn("patch", kind, ref), subresource };
    return await this.#json<T>({ method: "PATCH", path, body }, action, signal);
  }

  /** The status of a TokenRequest for a ServiceAccount. */
  async createToken(account: ObjectRef, request: object, signal: AbortSignal): Promise<TokenStatus> {
    const kind = { group: "", version: "v1", plural: "serviceaccounts", kind: "ServiceAccount", namespaced: true };
    const path = `${resourcePath(kind, account.namespace, account.name)}/token`;
    const body = jsonBody("application/json", request);
    const action = { ...actionOn("create", kind, account), subresource: "token" };
    return (await this.#json<{ readonly status: TokenStatus }>({ method: "POST", path, body }, action, signal)).status;
  }

  /** False when there was none. `uid` is a precondition: exactly this object. */
  async delete<T extends KubeObject>(
    kind: Resource<T>,
    ref: ObjectRef & { readonly uid?: string | undefined },
    signal: AbortSignal,
  ): Promise<boolean> {
    const options = {
      apiVersion: "v1",
      kind: "DeleteOptions",
      propagationPolicy: "Background",
      ...(ref.uid === undefined ? {} : { preconditions: { uid: ref.uid } }),
    };
    const path = resourcePath(kind, ref.namespace, ref.name);
    const body = jsonBody("application/json", options);
    const done = await this.#json({ method: "DELETE", path, body }, actionOn("delete", kind, ref), signal).catch(
      undefinedWhenMissing,
    );
    return done !== undefined;
  }

  /** Asks the server whether we may; a server that does not answer that question is taken for yes. */
  async can(action: KubeAction, signal: AbortSignal): Promise<boolean> {
    const review = {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectAccessReview",
      spec: {
        resourceAttributes: {
          verb: action.verb,
          group: action.group,
          resource: action.resource,
          subresource: action.subresource,
          namespace: action.namespace,
          name: action.name,
        },
      },
    };
    const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    const reviewing = { verb: "create", group: "authorization.k8s.io", resource: "selfsubjectaccessreviews" };
    const asked: RawRequest = { method: "POST", path, body: jsonBody("application/json", review) };
    const answer = await orUndefined(
      this.#json<{ readonly status?: { readonly allowed?: boolean } }>(asked, reviewing, signal),
    );
    return answer?.status?.allowed ?? true;
  }

  /** Throws the `forbidden` error, with the command that checks it, when we may not. */
  async require(action: KubeAction, signal: AbortSignal): Promise<void> {
    if (!(await this.can(action, signal))) throw forbidden(this.target, action);
  }

  /** Also the first sign that the cluster answers. */
  async serverVersion(signal: AbortSignal): Promise<ServerVersion> {
    if (this.#version !== undefined) return this.#version;
    const action = { verb: "get", group: "", resource: "version" };
    const raw = await this.#json<{ major?: string; minor?: string; gitVersion?: string }>(
      { method: "GET", path: "/version" },
      action,
      signal,
    );
    // Providers write the minor version as `29+`.
    const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(raw.gitVersion ?? "") ?? [undefined, raw.major, raw.minor];
    this.#version = {
      major: Number.parseInt(major ?? "1", 10) || 1,
      minor: Number.parseInt(minor ?? "0", 10) || 0,
      gitVersion: raw.gitVersion ?? "",
    };
    return this.#version;
  }

  /** Cuts every request, watch and pooled connection. */
  close(): void {
    this.transport.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  async #json<T>(request: RawRequest, action: KubeAction, signal: AbortSignal): Promise<T> {
    const ms = this.target.requestTimeoutMs ?? requestMs;
    using limit = deadline(
      this.clock,
      ms,
      `${action.verb} ${action.resource} on cluster ${this.target.server}`,
      signal,
    );
    for (let attempt = 0; ; attempt++) {
      const { status, body } = await raceSignal(this.transport.fetchText(request, limit.signal), limit.signal);
      if (status >= 200 && status < 300) return JSON.parse(body) as T;
      // 429: the server has not begun with it, so that sending it again is safe for every method.
      if (status !== 429 || attempt >= maxBusyRetries) throw statusError(this.target, action, status, body);
      await this.clock.sleep(500 * 2 ** attempt, limit.signal);
    }
  }
}

interface TokenStatus {
  readonly token: string;
  readonly expirationTimestamp: string;
}

interface ListPage<T> {
  readonly items?: readonly T[] | null;
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
}

export function actionOn(
  verb: string,
  kind: Resource<KubeObject>,
  ref: { readonly namespace?: string | undefined; readonly name?: string | undefined },
): KubeAction {
  return {
    verb,
    group: kind.group,
    resource: kind.plural,
    namespace: kind.namespaced ? ref.namespace : undefined,
    name: ref.name,
  };
}

export function listParams(query: ListQuery, more: Readonly<Record<string, string | undefined>>): string {
  const params = new URLSearchParams();
  const all = { labelSelector: query.labelSelector, fieldSelector: query.fieldSelector, ...more };
  for (const [key, value] of Object.entries(all)) if (value !== undefined && value !== "") params.set(key, value);
  return params.toString();
}

function writeParams(options: WriteOptions): string {
  return new URLSearchParams({ fieldManager, ...(options.dryRun === true ? { dryRun: "All" } : {}) }).toString();
}

function jsonBody(type: string, object: unknown): { readonly type: string; readonly text: string } {
  return { type, text: JSON.stringify(object) };
}

function undefinedWhenMissing(error: unknown): undefined {
  if (isAppError(error, "not_found")) return undefined;
  throw error;
}
