// An API server with pods, ConfigMaps, Secrets, services and tokens that a test may change, with rights that it may
// withdraw, and containers in which real programs of this machine stand in for the pod's.
import { spawn } from "node:child_process";
import type { ServerResponse } from "node:http";
import type { Clock } from "#base/clock.ts";
import { FakeApiServer, sendJson, sendStatus, type FakeRequest } from "#kube/api-server.fake.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeObject } from "#kube/objects.ts";

/** What an exec does: the output of this command, or the runtime's word that there is no such program. */
export type Program = (container: string, command: readonly string[]) => readonly string[] | undefined;

export class FakePodApi implements AsyncDisposable {
  readonly server: FakeApiServer;
  /** `secrets`, `pods`, …: by name. */
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #watchers = new Set<{ plural: string; name: string; response: ServerResponse }>();
  /** `verb resource`, as `get secrets`. */
  readonly forbidden = new Set<string>();
  readonly executed: string[] = [];
  program: Program = () => undefined;
  tokens = 0;
  tokenLifeMs = 3_600_000;
  #version = 1;

  private constructor(server: FakeApiServer) {
    this.server = server;
  }

  static async open(): Promise<FakePodApi> {
    const api = new FakePodApi(await new FakeApiServer().listen());
    api.server.answer = (request, response) => api.#answer(request, response);
    api.server.onUpgrade = (socket, request) => {
      const params = new URL(request.url ?? "", "http://fake").searchParams;
      api.#exec(socket, params.get("container") ?? "", params.getAll("command"));
    };
    return api;
  }

  client(clock?: Clock): Kube {
    return this.server.open({ namespace: "shop" }, clock === undefined ? {} : { clock });
  }

  put(plural: string, object: KubeObject): void {
    const name = object.metadata.name ?? "";
    const whole = {
      ...object,
      metadata: { ...object.metadata, namespace: "shop", resourceVersion: String(++this.#version) },
    };
    const all = this.#objects.get(plural) ?? new Map<string, KubeObject>();
    this.#objects.set(plural, all.set(name, whole));
    this.#tell(plural, "MODIFIED", whole);
  }
  remove(plural: string, name: string): void {
    const object = this.#objects.get(plural)?.get(name);
    this.#objects.get(plural)?.delete(name);
    if (object !== undefined) this.#tell(plural, "DELETED", object);
  }
  /** No exec at all. */
  forbidExec(): void {
    const message = 'pods "web-1" is forbidden: User "alice" cannot get pods/exec';
    this.server.refuseUpgrade = () => ({ code: 403, message });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }

  #tell(plural: string, type: string, object: KubeObject): void {
    for (const watcher of this.#watchers) {
      if (watcher.plural === plural && watcher.name === object.metadata.name) {
        watcher.response.write(`${JSON.stringify({ type, object })}\n`);
      }
    }
  }

  #answer({ method, path, query, body }: FakeRequest, response: ServerResponse): void {
    const [plural = "", name, subresource] = path.split("/").slice(path.startsWith("/apis/") ? 6 : 5);
    if (subresource === "token") this.#token(response, body);
    else if (method !== "GET") sendStatus(response, 405, "", "not here");
    else if (name !== undefined) this.#get(response, plural, name);
    else this.#list(response, plural, query);
  }

  #refused(response: ServerResponse, verb: string, plural: string): boolean {
    if (!this.forbidden.has(`${verb} ${plural}`)) return false;
    sendStatus(response, 403, "Forbidden", `${plural} is forbidden: User "alice" cannot ${verb} resource "${plural}"`);
    return true;
  }

  #get(response: ServerResponse, plural: string, name: string): void {
    if (this.#refused(response, "get", plural)) return;
    const object = this.#objects.get(plural)?.get(name);
    if (object === undefined) sendStatus(response, 404, "NotFound", "not found");
    else sendJson(response, object);
  }

  #list(response: ServerResponse, plural: string, query: URLSearchParams): void {
    const name = /^metadata\.name=(.*)$/.exec(query.get("fieldSelector") ?? "")?.[1];
    if (query.get("watch") !== null) {
      if (this.#refused(response, "watch", plural)) return;
      response.writeHead(200).flushHeaders();
      const watcher = { plural, name: name ?? "", response };
      this.#watchers.add(watcher);
      response.on("close", () => this.#watchers.delete(watcher));
      return;
    }
    if (this.#refused(response, "list", plural)) return;
    const all = [...(this.#objects.get(plural)?.values() ?? [])];
    const items = all.filter((object) => name === undefined || object.metadata.name === name);
    sendJson(response, { metadata: { resourceVersion: String(this.#version) }, items });
  }

  #token(response: ServerResponse, body: string): void {
    if (this.#refused(response, "create", "serviceaccounts/token")) return;
    const { spec } = JSON.parse(body) as { spec: { audiences?: string[]; boundObjectRef: { name: string } } };
    const token = `token ${++this.tokens} for ${spec.audiences?.join() ?? "default"} of ${spec.boundObjectRef.name}`;
    const expirationTimestamp = new Date(Date.now() + this.tokenLifeMs).toISOString();
    sendJson(response, { status: { token, expirationTimestamp } }, 201);
  }

  #exec(socket: Parameters<FakeApiServer["onUpgrade"]>[0], container: string, command: readonly string[]): void {
    this.executed.push(`${container}: ${command.join(" ")}`);
    const [file, ...args] = this.program(container, command) ?? [];
    const end = (outcome: object): void => {
      socket.send(Buffer.from(`\u0003${JSON.stringify(outcome)}`));
      socket.close(1000);
    };
    if (file === undefined) {
      end({
        status: "Failure",
        message: `unable to start container process: exec: "${command[0]}": executable file not found in $PATH`,
      });
      return;
    }
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
    socket.on("close", () => child.kill());
    child.stdout.on("data", (data: Buffer) => socket.send(Buffer.concat([Buffer.from([1]), data])));
    child.stderr.on("data", (data: Buffer) => socket.send(Buffer.concat([Buffer.from([2]), data])));
    child.on("close", (code) => {
      const causes = [{ reason: "ExitCode", message: String(code) }];
      end(code === 0 ? { status: "Success" } : { status: "Failure", reason: "NonZeroExitCode", details: { causes } });
    });
  }
}
