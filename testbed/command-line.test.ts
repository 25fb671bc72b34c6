import { describe, expect, test } from "vitest";
import { parseLaptop } from "./command-line.ts";

describe("parseLaptop()", () => {
  test("takes its own options and leaves the command's", () => {
    expect(parseLaptop(["--root", "--second", "ls", "--root"])).toEqual({
      options: { user: "root", laptop: 2 },
      argv: ["ls", "--root"],
    });
  });
  test("ends its options at --", () => {
    expect(parseLaptop(["--as-user", "solo", "--", "-x"])).toEqual({ options: { clusterUser: "solo" }, argv: ["-x"] });
  });
  test("opens a shell without a command", () => {
    expect(parseLaptop([])).toEqual({ options: {}, argv: ["/bin/bash"] });
  });
  test("refuses unknown options and users", () => {
    expect(() => parseLaptop(["--rot", "ls"])).toThrow("laptop has no option --rot");
    expect(() => parseLaptop(["--as-user", "eve"])).toThrow("--as-user eve is not one of admin, solo, small");
  });
});
