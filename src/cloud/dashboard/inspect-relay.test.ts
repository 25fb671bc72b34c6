// A person who may look no more was left with a page that waited for ever: what is destroyed without an error ends no pipe.
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { endedByCut } from "./inspect-relay.ts";

test.each([
  ["we end the look", undefined],
  ["the laptop is cut off", new Error("aborted")],
])("the lines end when %s", async (_, error) => {
  const response = new PassThrough();
  response.on("error", () => undefined);
  const lines = endedByCut(response);
  response.write("line\n");
  expect(String((await once(lines, "data"))[0])).toBe("line\n");
  response.destroy(error);
  await once(lines, "end");
});
