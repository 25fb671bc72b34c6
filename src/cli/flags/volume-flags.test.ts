// Traps of the original: `--mount=false` that was ignored, and a relative path that the daemon took from its own place.
import { expect, test } from "vitest";
import { readVolumeWish } from "./volume-flags.ts";

const limitBytes = 256 * 2 ** 20;

test.each([
  [{}, { copy: [], limitBytes }],
  [{ mount: "true" }, { copy: [], limitBytes }],
  [{ mount: "True:ro" }, { copy: [], limitBytes }],
  [{ mount: "false" }, undefined],
  [{ mount: "0" }, undefined],
  [{ mount: "/tmp/x" }, { copy: [], limitBytes, path: "/tmp/x" }],
  [{ mount: "./x/../y:ro" }, { copy: [], limitBytes, path: "/work/y" }],
  [
    { copyVolume: ["data", "/cache"], copyLimit: "1.5Gi" },
    { copy: ["data", "/cache"], limitBytes: 1.5 * 2 ** 30 },
  ],
  [{ copyLimit: "1000" }, { copy: [], limitBytes: 1000 }],
])("readVolumeWish() of %j is %j", (flags, wish) => {
  expect(readVolumeWish(flags, "/work")).toEqual(wish);
});

test.each([
  [{ mount: "" }, '--mount is "", expected true, false or a directory'],
  [{ mount: "false", copyVolume: ["data"] }, "--mount=false and --copy-volume exclude each other"],
  [{ copyLimit: "lots" }, '--copy-limit is "lots", expected an amount such as 500Mi or 2Gi'],
  [{ copyLimit: "0" }, '--copy-limit is "0", expected an amount such as 500Mi or 2Gi'],
])("readVolumeWish() refuses %j", (flags, message) => {
  expect(() => readVolumeWish(flags, "/work")).toThrow(message);
});
