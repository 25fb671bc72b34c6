// This laptop's part at the cloud server that its user is logged in at: registers the cluster there, and has the
// traffic-manager open its tunnel. All of it beside `connect`, tried again while the server is away, and again after
// each new session and each change of the login. Who joins waits for one attempt only.
import { getCACertificates } from "node:tls";
import { deadline, linkSignals, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import { CloudClient, type CloudCall } from "#login/cloud-client.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import { currentLogin, type CurrentLogin } from "#login/current-login.ts";
import { cloudPaths, registerClusterAnswer, type RegisterClusterAnswer } from "#wire/cloud-api.ts";
import type { Feature } from "#wire/hello.ts";
import type { managerApi } from "#wire/manager-api.ts";
import type { CloudStatus } from "#wire/preview.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import type { z } from "zod";

export interface MembershipOptions {
  readonly places: LoginPlaces;
  readonly clusterId: (signal: AbortSignal) => Promise<string>;
  /** For people. */
  readonly clusterName: string;
  readonly manager: () => ManagerConnection | undefined;
  /** After each joining, and now and then while there is something to look after. */
  readonly onJoined: (signal: AbortSignal) => Promise<void>;
  /** There is something to look after. */
  readonly isUsed: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: a server that is being started again is back within seconds; one that is away is asked seldom. */
const [firstRetryMs, lastRetryMs] = [2000, 300_000];
/** chosen: what was removed elsewhere is seen so late. */
const lookMs = 60_000;
/** chosen: the traffic-manager opens a tunnel meanwhile. */
const joinMs = 15_000;
/** chosen: a tunnel that a login of just now wants stands after one or two; more of it is an outage, to be told. */
const settleMs = 5000;
/** protocol: `cloud.join`. */
const maxCertificates = 20;

/** What the next attempt may find different. */
const mayPass = (error: AppError): boolean =>
  (["unreachable", "timeout", "busy", "link_lost", "manager_unavailable"] as const).some((code) =>
    isAppError(error, code),
  );

export class Membership {
  readonly #options: MembershipOptions;
  /** Teams that were asked for; undefined is the only one there is. */
  readonly #teams = new Set<string | undefined>([undefined]);
  readonly #registered = new Map<string, RegisterClusterAnswer>();
  #status: CloudStatus | undefined;
  #joinedUrl: string | undefined;
  #asked = Promise.withResolvers<void>();
  /** The status is another one. */
  #told = Promise.withResolvers<void>();
  #refusals = 0;
  /** Somebody else may be logged in by now, at the same server. */
  #isAnother = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Undefined while nobody is logged in. */
  get status(): CloudStatus | undefined {
    return this.#status;
  }

  /** The server that the traffic-manager was told of. */
  get joinedUrl(): string | undefined {
    return this.#joinedUrl;
  }

  /** The login or the session is another one. */
  again(loginChanged: boolean): void {
    if (loginChanged) this.#isAnother = true;
    this.#asked.resolve();
  }

  /** The traffic-manager's news of its tunnel. */
  onChanged(news: { readonly url: string; readonly state: string; readonly message: string }): void {
    if (news.url !== this.#joinedUrl) return;
    if (news.state !== "refused")
      return this.#tell(news.url, news.state === "connected" ? "connected" : "connecting", news.message);
    this.#tell(news.url, "away", "it does not take this cluster's token any more");
    this.#registered.clear();
    this.#refusals += 1;
    if (this.#refusals === 1) this.#asked.resolve(); // once: the login may be another one by now
  }

  /** Until the signal aborts. */
  async keep(signal: AbortSignal): Promise<void> {
    const { log, isUsed } = this.#options;
    let retryMs = firstRetryMs;
    while (!signal.aborted) {
      this.#asked = Promise.withResolvers();
      let waitMs: number | undefined;
      try {
        await this.#joinAll(signal);
        retryMs = firstRetryMs;
        waitMs = isUsed() ? lookMs : undefined;
      } catch (error) {
        const failure = toAppError(error);
        if (signal.aborted) return;
        log.warn("the cloud server could not be joined", { error: failure.message });
        if (this.#status !== undefined) this.#tell(this.#status.url, "away", failure.message);
        if (mayPass(failure)) {
          waitMs = retryMs;
          retryMs = Math.min(2 * retryMs, lastRetryMs);
        }
      }
      await this.#pause(waitMs, signal);
    }
  }

  async #pause(ms: number | undefined, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    using either = linkSignals(signal, over.signal);
    const waits = [raceSignal(this.#asked.promise, either.signal)];
    if (ms !== undefined) waits.push(this.#options.clock.sleep(ms, either.signal));
    await Promise.race(waits).catch(() => undefined); // the loop's condition ends it
    over.abort();
    await Promise.allSettled(waits);
  }

  async #joinAll(signal: AbortSignal): Promise<void> {
    const login = await this.#login(signal);
    if (login?.url !== this.#joinedUrl || this.#isAnother) await this.#leave(signal);
    this.#isAnother = false;
    if (login === undefined) return this.#become(undefined);
    if (this.#status === undefined) this.#tell(login.url, "connecting", "");
    if (this.#options.manager() === undefined) return; // asked again when it is back
    const failure = await this.#joinTeams(login, signal);
    await this.#options.onJoined(signal);
    if (failure !== undefined) throw failure;
  }

  /** What keeps one team out does not keep the others; throws when it keeps out all. */
  async #joinTeams(login: CurrentLogin, signal: AbortSignal): Promise<AppError | undefined> {
    let failure: AppError | undefined;
    let joined = 0;
    for (const team of this.#teams) {
      try {
        await this.#join(login, team, signal);
        joined++;
      } catch (error) {
        signal.throwIfAborted();
        failure ??= toAppError(error);
        if (team !== undefined && isAppError(error, "not_found")) this.#teams.delete(team); // it was left meanwhile
      }
    }
    if (this.#teams.size === 0) this.#teams.add(undefined);
    if (failure !== undefined && joined === 0) throw failure;
    return failure;
  }

  /** Joins with this team, whose preview is about to be made. */
  async join(team: string | undefined, signal: AbortSignal): Promise<RegisterClusterAnswer> {
    const joined = await this.#join(await this.#requireLogin(signal), team, signal);
    if (!this.#teams.has(team)) this.#teams.delete(undefined); // several, and none is the only one
    this.#teams.add(team);
    return joined;
  }

  /** Waits a moment for the tunnel that the traffic-manager is opening. Never rejects: `status` says how it ended. */
  async settle(progress: (text: string) => void, signal: AbortSignal): Promise<void> {
    if (this.#status?.state !== "connecting") return;
    progress(`Waiting for the traffic-manager to reach ${this.#status.url}`);
    using limit = deadline(this.#options.clock, settleMs, "the traffic-manager's way to the cloud server", signal);
    while (this.#status?.state === "connecting" && !limit.signal.aborted) {
      await raceSignal(this.#told.promise, limit.signal).catch(() => undefined); // the loop's condition ends it
    }
  }

  /** A call with a token of the login. */
  async call<T>(call: CloudCall, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> {
    const { url, token } = await this.#requireLogin(signal);
    return await new CloudClient({ url, clock: this.#options.clock, signal }).call(call, token, schema);
  }

  async #requireLogin(signal: AbortSignal): Promise<CurrentLogin> {
    const login = await this.#login(signal);
    if (login !== undefined) return login;
    throw new AppError("unauthorized", "nobody is logged in at a cloud server here", {
      hint: "log in first: telepresence login",
    });
  }

  async #login(signal: AbortSignal): Promise<CurrentLogin | undefined> {
    const { places, clock } = this.#options;
    try {
      return await currentLogin({ places, clock, signal });
    } catch (error) {
      // An expired login is as good as none, but somebody should know.
      if (this.#status !== undefined) this.#tell(this.#status.url, "away", toAppError(error).message);
      throw error;
    }
  }

  async #join(login: CurrentLogin, team: string | undefined, signal: AbortSignal): Promise<RegisterClusterAnswer> {
    const { manager, clusterId, clock } = this.#options;
    const current = manager();
    if (current === undefined) throw new AppError("manager_unavailable", "the link to the traffic-manager is down");
    if (!current.session.peer.features.includes("cloud" satisfies Feature)) {
      throw new AppError(
        "version_mismatch",
        "the traffic-manager is of an older version, which knows no cloud servers",
        {
          hint: "`telepresence uninstall --everything` and a new `telepresence connect` replace it, which ends everybody's sessions",
        },
      );
    }
    const key = `${login.url} ${team ?? ""}`;
    let cluster = this.#registered.get(key);
    if (cluster === undefined) {
      const body = { id: await clusterId(signal), name: this.#options.clusterName, team };
      const client = new CloudClient({ url: login.url, clock, signal });
      cluster = await client.call(
        { method: "POST", path: cloudPaths.clusters, body },
        login.token,
        registerClusterAnswer,
      );
      this.#registered.set(key, cluster);
    }
    this.#joinedUrl = login.url; // before: the manager may come by this laptop at once
    using limit = deadline(clock, joinMs, "the traffic-manager's answer", signal);
    const { state, message = "" } = await current.rpc.call("cloud.join", joinRequest(login.url, cluster), limit.signal);
    if (state === "refused") {
      this.#registered.delete(key);
      throw new AppError("denied", `${login.url} does not take the token that it gave for this cluster`);
    }
    this.#refusals = 0;
    this.#tell(login.url, state, message);
    return cluster;
  }

  async #leave(signal: AbortSignal): Promise<void> {
    const url = this.#joinedUrl;
    this.#joinedUrl = undefined;
    this.#registered.clear();
    const manager = this.#options.manager();
    if (url === undefined || manager === undefined) return;
    await manager.rpc.call("cloud.leave", { url }, signal).catch((error: unknown) => {
      this.#options.log.warn("the cloud server could not be left", { error: toAppError(error).message });
    });
  }

  #tell(url: string, state: CloudStatus["state"], message: string): void {
    this.#become({ url, state, message });
  }

  #become(status: CloudStatus | undefined): void {
    this.#status = status;
    this.#told.resolve();
    this.#told = Promise.withResolvers();
  }
}

/** With the authorities that the user has named for this machine (`NODE_EXTRA_CA_CERTS`). */
function joinRequest(
  url: string,
  { id, team, token }: RegisterClusterAnswer,
): ParamsOf<typeof managerApi, "cloud.join"> {
  const caCertificates = getCACertificates("extra").slice(0, maxCertificates);
  return { url, clusterId: id, team: team.id, token, ...(caCertificates.length === 0 ? {} : { caCertificates }) };
}
