// A namespace that was made while the device was being opened could not be looked up until the next one came.
import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import { namespaces } from "#kube/objects.ts";
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
  expect(known).toEqual(["default"]);
  (await watching.promise).write(`${JSON.stringify({ type: "ADDED", object: named("shop") })}\n`);
  await expect.poll(() => names.current).toEqual(["default", "shop"]);
  const delivered: (readonly string[])[] = [];
  names.deliver(known, (changed) => delivered.push(changed));
  expect(delivered.at(-1)).toEqual(["default", "shop"]);
});

test("there are none where they may not be listed", async () => {
  await using server = await new FakeApiServer().listen();
  server.answer = (_request, response) => sendStatus(response, 403, "Forbidden", "cannot list namespaces");
  await using scope = new Scope(silentLogger);
  const follow = { kube: server.open(), kind: namespaces, query: {}, scope, log: silentLogger };
  expect((await ClusterNames.follow(follow)).current).toEqual([]);
});
