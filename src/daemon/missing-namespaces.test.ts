import { expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import { warnOfMissingNamespaces } from "./missing-namespaces.ts";

const { signal } = new AbortController();

// `connect -n nosuch` was content.
test("names each namespace that does not exist, once, and none that may not be seen", async () => {
  await using server = await new FakeApiServer().listen();
  server.answer = ({ path }, response) => {
    const name = path.split("/").at(-1) ?? "";
    if (name === "secret") sendStatus(response, 403, "Forbidden", "not for you");
    else if (name === "shop") sendJson(response, { metadata: { name } });
    else sendStatus(response, 404, "NotFound", `namespaces "${name}" not found`);
  };
  const kube = server.open();
  expect(await warnOfMissingNamespaces(kube, ["nosuch", "shop", "secret", "nosuch", "other"], signal)).toEqual([
    "namespace nosuch does not exist",
    "namespace other does not exist",
  ]);
  expect(await warnOfMissingNamespaces(kube, ["nosuch"], AbortSignal.abort())).toEqual([]);
});
