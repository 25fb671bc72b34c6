import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { FakeApiServer, sendJson, sendStatus } from "./api-server.fake.ts";
import { deployments, pods } from "./objects.ts";
import { openKube } from "./client.ts";
import { plainTarget } from "./api-server.fake.ts";
import { isMissingPermission } from "./status.ts";

const { signal } = new AbortController();
const failure = async (promise: Promise<unknown>): Promise<AppError> => {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof AppError) return error;
  throw new Error(`expected an AppError, got ${String(error)}`);
};

describe("Kube requests", () => {
  test("carry the token and the impersonation, and share one connection", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { metadata: { name: "x" } });
    const kube = server.open({ impersonate: { user: "bob", uid: undefined, groups: ["a", "b"], extra: {} } });
    for (let count = 0; count < 3; count++) await kube.get(pods, { namespace: "n", name: "x" }, signal);
    expect(server.sockets.size).toBe(1);
    expect(server.requests[0]?.path).toBe("/api/v1/namespaces/n/pods/x");
    expect(server.requests[0]?.headers).toMatchObject({
      authorization: "Bearer secret",
      "impersonate-user": "bob",
      "impersonate-group": "a, b",
    });
  });
  test("send each impersonated group in a header of its own", async () => {
    await using server = await new FakeApiServer().listen();
    let raw: string[] = [];
    server.answer = (_request, response) => {
      raw = response.req.rawHeaders;
      sendJson(response, {});
    };
    const kube = server.open({ impersonate: { user: "bob", uid: undefined, groups: ["a", "b"], extra: {} } });
    await kube.get(pods, { namespace: "n", name: "x" }, signal);
    expect(raw.filter((item) => item.toLowerCase() === "impersonate-group")).toHaveLength(2);
  });
  test("read all pages of a list", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = ({ query }, response) =>
      sendJson(
        response,
        query.get("continue") === null
          ? { metadata: { continue: "next", resourceVersion: "7" }, items: [{ metadata: { name: "a" } }] }
          : { metadata: { resourceVersion: "7" }, items: [{ metadata: { name: "b" } }] },
      );
    const list = await server.open().list(pods, { labelSelector: "app=x" }, signal);
    expect(list).toMatchObject({
      resourceVersion: "7",
      items: [{ kind: "Pod", metadata: { name: "a" } }, { metadata: { name: "b" } }],
    });
    expect(server.requests[1]?.query.get("labelSelector")).toBe("app=x");
  });
  test("are sent again when the server had closed the kept connection", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { metadata: {} });
    const kube = server.open();
    await kube.get(pods, { name: "x" }, signal);
    // Cut on the second request: what a connection looks like that the server gave up while the request was on its way.
    let cut = 0;
    server.answer = (_request, response) => {
      if (cut++ === 0) response.socket?.destroy();
      else sendJson(response, { metadata: { name: "again" } });
    };
    expect((await kube.get(pods, { name: "x" }, signal)).metadata.name).toBe("again");
  });
  // After a sleep each kept connection, dead by then, took a request's whole 30 s before the link could come back.
  test("take a new connection once the idle ones are dropped", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { metadata: {} });
    const kube = server.open();
    await kube.get(pods, { name: "x" }, signal);
    const [first] = server.sockets;
    await new Promise(setImmediate); // it is idle from the end of the turn on
    kube.transport.renew();
    await kube.get(pods, { name: "x" }, signal);
    await expect.poll(() => server.sockets.size).toBe(1);
    expect([...server.sockets][0]).not.toBe(first);
  });
  test("wait and repeat when the server is busy", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => {
      if (server.requests.length === 1) sendStatus(response, 429, "TooManyRequests", "slow down");
      else sendJson(response, { metadata: {} });
    };
    await server.open().get(pods, { name: "x" }, signal);
    expect(server.requests).toHaveLength(2);
  });
  test("end with the caller's signal", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = () => undefined;
    const controller = new AbortController();
    const kube = server.open();
    const waiting = kube.get(pods, { name: "x" }, controller.signal);
    controller.abort(new AppError("cancelled", "enough"));
    await expect(waiting).rejects.toThrow("enough");
  });
  test("end after --request-timeout and name the server", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = () => undefined;
    const error = await failure(server.open({ requestTimeoutMs: 50 }).get(pods, { name: "x" }, signal));
    expect(error.code).toBe("timeout");
    expect(error.message).toContain(`127.0.0.1:${server.port}`);
  });
});

describe("Kube errors", () => {
  test("name verb, resource, namespace and the command that checks a missing right", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) =>
      sendStatus(
        response,
        403,
        "Forbidden",
        'deployments.apps "hello" is forbidden: User "alice" cannot patch resource "deployments" in API group "apps" in the namespace "shop"',
      );
    const error = await failure(server.open().patch(deployments, { namespace: "shop", name: "hello" }, {}, signal));
    expect(error.code).toBe("forbidden");
    expect(error.message).toBe('user "alice" may not patch deployments.apps in namespace shop');
    expect(error.hint).toContain("kubectl --context test auth can-i patch deployments.apps -n shop");
  });
  test("name the right to impersonate, and check it as the user that is really there", async () => {
    await using server = await new FakeApiServer().listen();
    const said =
      'users "bob" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at the cluster scope';
    server.answer = (_request, response) => sendStatus(response, 403, "Forbidden", said);
    const kube = server.open({ impersonate: { user: "bob", uid: undefined, groups: [], extra: {} } });
    const error = await failure(kube.get(pods, { namespace: "n", name: "x" }, signal));
    expect(error.message).toBe('user "alice" may not impersonate users in the whole cluster');
    expect(error.hint).toContain("`kubectl --context test auth can-i impersonate users`");
    expect(isMissingPermission(error)).toBe(false);
  });
  test("tell a refusal by admission from a missing right", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) =>
      sendStatus(response, 403, "Forbidden", 'pods "x" is forbidden: exceeded quota: tiny, requested: pods=1');
    const error = await failure(server.open().get(pods, { namespace: "n", name: "x" }, signal));
    expect(error.message).toContain("exceeded quota: tiny");
    expect(error.fields["admission"]).toBe(true);
  });
  test.each([
    [
      422,
      "Invalid",
      "deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
    ],
    [400, "BadRequest", 'admission webhook "w" denied the request: no'],
    [500, "InternalError", 'Internal error occurred: failed calling webhook "w": no'],
  ])("tell a refusal by a policy or a webhook, whatever its status: %s", async (code, reason, said) => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendStatus(response, code, reason, said);
    const error = await failure(server.open().get(pods, { namespace: "n", name: "x" }, signal));
    expect(error).toMatchObject({ code: "forbidden", hint: "ask the cluster's administrator" });
    expect(error.message).toMatch(
      /^get pods x in namespace n was refused by the cluster: (ValidatingAdmissionPolicy|admission webhook|failed calling)/,
    );
    expect(isMissingPermission(error)).toBe(false);
  });
  test("name the server and the context when nobody listens", async () => {
    const server = await new FakeApiServer().listen();
    const target = server.target();
    await server[Symbol.asyncDispose]();
    using kube = openKube(target);
    const error = await failure(kube.serverVersion(signal));
    expect(error.code).toBe("cluster_unreachable");
    expect(error.message).toBe(`cluster ${target.server} (context test) cannot be reached: connection refused`);
  });
  test("say that the name does not resolve", async () => {
    using kube = openKube(plainTarget("http://nowhere.invalid:1"));
    expect((await failure(kube.serverVersion(signal))).message).toContain("does not resolve");
  });
  test("tell expired credentials", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendStatus(response, 401, "Unauthorized", "Unauthorized");
    expect((await failure(server.open().get(pods, { name: "x" }, signal))).code).toBe("unauthorized");
    expect(server.requests).toHaveLength(1);
  });
});

describe("Kube.can()", () => {
  test("asks for the subresource and believes the answer", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { status: { allowed: false } }, 201);
    const action = { verb: "get", group: "", resource: "pods", subresource: "portforward", namespace: "n" };
    const kube = server.open();
    expect(await kube.can(action, signal)).toBe(false);
    expect(JSON.parse(server.requests[0]?.body ?? "")).toMatchObject({
      spec: { resourceAttributes: { subresource: "portforward", namespace: "n" } },
    });
    expect((await failure(kube.require(action, signal))).hint).toContain(
      "auth can-i get pods --subresource=portforward -n n",
    );
  });
});

describe("Kube.serverVersion()", () => {
  test("reads providers' spellings", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) =>
      sendJson(response, { major: "1", minor: "29+", gitVersion: "v1.29.6-eks-db838b0" });
    expect(await server.open().serverVersion(signal)).toMatchObject({ major: 1, minor: 29 });
  });
});
