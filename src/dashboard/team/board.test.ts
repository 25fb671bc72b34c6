// A person's ninth page may not wait at the server, is answered at once, and asked again as fast as it could.
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, expect, test, vi } from "vitest";
import { Board } from "./board.ts";

afterEach(() => vi.unstubAllGlobals());

test("a page that is told the same at once rests before it asks again", async () => {
  let asked = 0;
  vi.stubGlobal("fetch", () => {
    asked += 1;
    return Promise.resolve(new Response(JSON.stringify({ revision: "same", csrf: "" })));
  });
  const board = new Board(() => undefined);
  for (let turns = 0; turns < 50; turns += 1) await turn();
  board.close();
  expect(asked).toBe(2);
});
