import { describe, expect, test } from "vitest";
import { splitArguments } from "./arguments.ts";

describe("splitArguments()", () => {
  test("sets the user's own command aside, whatever it looks like", () => {
    const argv = ["connect", "--", "ls", "--context", "x", "--", "--debug=false"];
    expect(splitArguments(argv)).toEqual({
      own: ["connect"],
      command: ["ls", "--context", "x", "--", "--debug=false"],
    });
  });

  test("tells an empty command from none", () => {
    expect(splitArguments(["connect", "--"]).command).toEqual([]);
    expect(splitArguments(["connect"]).command).toBeUndefined();
  });

  test("reads booleans as kubectl's flags are written", () => {
    const own = (...argv: string[]): readonly string[] => splitArguments(argv).own;
    expect(own("list", "--debug=true", "--agents=false")).toEqual(["list", "--debug"]);
    expect(own("list", "--only-interceptable=false")).toEqual(["list", "--no-only-interceptable"]);
    expect(own("list", "-o=0")).toEqual(["list", "--no-only-interceptable"]);
    expect(own("intercept", "--env-file=debug=true", "--debug=maybe")).toEqual([
      "intercept",
      "--env-file=debug=true",
      "--debug=maybe",
    ]);
  });
});
