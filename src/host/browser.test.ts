// Where a browser is opened, and where a code is shown instead.
import { describe, expect, test } from "vitest";
import { hasBrowser, openBrowser } from "./browser.ts";

describe("hasBrowser()", () => {
  test.each([
    [{ DISPLAY: ":0" }, "linux", true],
    [{ WAYLAND_DISPLAY: "wayland-0" }, "linux", true],
    [{}, "linux", false],
    [{ DISPLAY: "" }, "linux", false],
    [{ DISPLAY: "localhost:10", SSH_CONNECTION: "a b c d" }, "linux", false],
    [{}, "darwin", true],
    [{ SSH_TTY: "/dev/ttys1" }, "darwin", false],
  ])("%j on %s", (env, platform, expected) => {
    expect(hasBrowser(env, platform)).toBe(expected);
  });
});

test("a browser that cannot be started is no browser", async () => {
  expect(await openBrowser("http://localhost/", { PATH: "/nonexistent" })).toBe(false);
});
