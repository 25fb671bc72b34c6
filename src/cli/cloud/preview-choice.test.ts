// The matrix of the original's smoke test, and what it did not say of scripts.
import { describe, expect, test } from "vitest";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";
import { choosePreview } from "./preview-choice.ts";

const all = { httpMatch: ["all"] };
const described = (flags: InterceptFlags, loggedIn: boolean, canAsk = true): string => {
  const { url, personal } = choosePreview(flags, { loggedIn, canAsk });
  return `${personal ? "header" : "no header"}, ${url ? "URL" : "no URL"}`;
};

describe("at a terminal", () => {
  test.each<[string, InterceptFlags, boolean, string]>([
    ["not logged in", {}, false, "no header, no URL"],
    ["--preview-url=true --http-match=all", { previewUrl: true, ...all }, true, "no header, URL"],
    ["logged in", {}, true, "header, URL"],
    ["--preview-url=false", { previewUrl: false }, true, "header, no URL"],
    ["--http-match=all", all, true, "no header, URL"],
    ["both off", { previewUrl: false, ...all }, true, "no header, no URL"],
    ["requests chosen otherwise", { httpPathPrefix: "/cart" }, true, "no header, URL"],
    ["--mechanism=tcp", { mechanism: "tcp" }, true, "no header, URL"],
    ["a wiretap", { attachment: "wiretap" }, true, "no header, no URL"],
    ["a replacement", { attachment: "replace" }, true, "no header, no URL"],
    ["a replacement with --preview-url", { attachment: "replace", previewUrl: true }, true, "no header, URL"],
    ["datagrams", { port: ["5353:53/udp"] }, true, "no header, no URL"],
  ])("%s", (_, flags, loggedIn, choice) => {
    expect(described(flags, loggedIn)).toBe(choice);
  });
});

// Who had logged in once found that each script on that laptop got other requests than before.
describe("in a script, a login changes nothing that is not asked for", () => {
  test.each<[string, InterceptFlags, string]>([
    ["nothing", {}, "no header, no URL"],
    ["--preview-url=false", { previewUrl: false }, "no header, no URL"],
    ["--http-match=all", all, "no header, no URL"],
    ["--preview-url=true", { previewUrl: true }, "header, URL"],
    ["--preview-url=true --http-match=all", { previewUrl: true, ...all }, "no header, URL"],
  ])("%s", (_, flags, choice) => {
    expect(described(flags, true, false)).toBe(choice);
  });
});
