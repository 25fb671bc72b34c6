import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { Inspector } from "./inspector.ts";

test("a page that is open stays, hides what is asked for later as well, and is forgotten when nobody looks", async () => {
  const pageFolder = await mkdtemp(join(tmpdir(), "page-"));
  await using _folder = { [Symbol.asyncDispose]: () => rm(pageFolder, { recursive: true }) };
  await Promise.all(["index.html", "app.js", "app.css"].map((name) => writeFile(join(pageFolder, name), name)));
  const clock = new FakeClock();
  await using inspector = new Inspector({
    pageFolder,
    intercepts: () => ({ intercepts: [], connected: true }),
    dial: () => Promise.reject(new Error("nothing is sent again")),
    clock,
    log: silentLogger,
  });
  const url = new URL((await inspector.open([])).url);
  expect((await inspector.open(["x-mine"])).url).toBe(url.href);
  const route = { intercept: "i", containerPort: 1, podName: "p", caller: "c", target: "t" };
  const [caller, process] = [new PassThrough(), new PassThrough()];
  inspector.recorder.tap(route, caller, process);
  caller.write("GET /?x-mine=s3cret HTTP/1.1\r\n\r\n");
  await expect.poll(() => inspector.recorder.find(1)).toBeDefined();
  const answer = await fetch(new URL("/api/exchanges/1", url), {
    headers: { authorization: `Bearer ${url.hash.slice(1)}` },
  });
  expect(((await answer.json()) as { target: string }).target).toBe("/?x-mine=•••");
  await clock.advance(620_000);
  expect([inspector.recorder.isOn, [...inspector.recorder.exchanges]]).toEqual([false, []]);
});
