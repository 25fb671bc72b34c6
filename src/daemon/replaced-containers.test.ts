import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { putBack } from "./replaced-containers.ts";

const hello = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
const parts = { clock: new FakeClock(), log: silentLogger };

test("a container that could not be put back is told of, with what puts it back", async () => {
  const restore = () => Promise.reject(new AppError("forbidden", "ada may not patch deployments"));
  const warning = await putBack(hello, { ...parts, access: { restore } });
  expect(warning).toBe(
    "the replaced container of deployment hello is not back yet: ada may not patch deployments; " +
      "the next `telepresence connect`, or `telepresence uninstall --agent hello`, puts it back",
  );
});

test("what a release changed of a replaced container is told of", async () => {
  const restore = () => Promise.resolve("image was changed");
  expect(await putBack(hello, { ...parts, access: { restore } })).toBe("image was changed");
});
