// A namespace that was made while the device was being opened could not be looked up until the next one came.
import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import { namespaces, services } from "#kube/objects.ts";
import { ClusterNames } from "./cluster-names.ts";

const named = (name: string): object => ({ metadata: { name, uid: name, resourceVersion: "11" } });

test("names that changed before anybody listened are delivered to whoever does", async () => {
  await using server = await new FakeApiServer().listen();
  const watching = Promise.withResolvers<ServerResponse>();
  server.answer = ({ query }, response) => {
    if (query.get("watch") === null)
      sendJson(response, { metadata: { resourceVersion: "10" }, items: [named("default")] });
    else watching.resolve(response.writeHead(200));
  };
  await using scope = new Scope(silentLogger);
  const names = await ClusterNames.follow({
    kube: server.open(),
    kind: namespaces,
    query: {},
    scope,
    log: silentLogger,
  });
  const known = names.current;
  expect(known.names).toEqual(["default"]);
  (await watching.promise).write(`${JSON.stringify({ type: "ADDED", object: named("shop") })}\n`);
  await expect.poll(() => names.current.names).toEqual(["default", "shop"]);
  const delivered: (readonly string[])[] = [];
  names.deliver(known, (changed) => delivered.push(changed.names));
  expect(delivered.at(-1)).toEqual(["default", "shop"]);
});

test("there are none where they may not be listed", async () => {
  await using server = await new FakeApiServer().listen();
  server.answer = (_request, response) => sendStatus(response, 403, "Forbidden", "cannot list namespaces");
  await using scope = new Scope(silentLogger);
  const follow = { kube: server.open(), kind: namespaces, query: {}, scope, log: silentLogger };
  expect((await ClusterNames.follow(follow)).current).toEqual({ names: [], addresses: {} });
});

test("services' addresses are known while they are followed: not of headless ones, aliases, or for ever", async () => {
  await using server = await new FakeApiServer().listen();
  const service = (name: string, spec: object): object => ({ ...named(name), spec });
  const items = [
    service("web", { clusterIP: "10.96.0.7", clusterIPs: ["10.96.0.7", "fd00:96::7"] }),
    service("old", { clusterIP: "10.96.0.8" }),
    service("headless", { clusterIP: "None", clusterIPs: ["None"] }),
    service("alias", { type: "ExternalName", externalName: "example.com", clusterIP: "10.96.0.9" }),
  ];
  const watching = Promise.withResolvers<ServerResponse>();
  let mayList = true;
  server.answer = ({ query }, response) => {
    if (query.get("watch") !== null) watching.resolve(response.writeHead(200));
    else if (mayList) sendJson(response, { metadata: { resourceVersion: "10" }, items });
    else sendStatus(response, 403, "Forbidden", "cannot list services");
  };
  await using scope = new Scope(silentLogger);
  const names = await ClusterNames.follow({ kube: server.open(), kind: services, query: {}, scope, log: silentLogger });
  const all = ["web", "old", "headless", "alias"];
  const addresses = { web: ["10.96.0.7", "fd00:96::7"], old: ["10.96.0.8"] };
  await expect.poll(() => names.current).toEqual({ names: all, addresses });
  mayList = false;
  (await watching.promise).end(`${JSON.stringify({ type: "ERROR", object: { code: 410 } })}\n`);
  await expect.poll(() => names.current).toEqual({ names: all, addresses: {} });
});
