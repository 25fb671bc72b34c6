// A mistyped path was answered with "ENOENT: no such file or directory, open '/x'" behind a sentence that had said so.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { describeFileError } from "./file-error.ts";

test("names what is wrong with a file without errno, call or path", () => {
  const folder = mkdtempSync(join(tmpdir(), "file-error-"));
  try {
    mkdirSync(join(folder, "directory"));
    writeFileSync(join(folder, "file"), "");
    symlinkSync("circle", join(folder, "circle"));
    const said = (...path: readonly string[]): string => {
      try {
        return readFileSync(join(folder, ...path), "utf8");
      } catch (error) {
        return describeFileError(error);
      }
    };
    expect(said("nothing")).toBe("there is no such file or directory");
    expect(said("directory")).toBe("it is a directory");
    expect(said("file", "x")).toBe("a part of its path is no directory");
    expect(said("circle")).toBe("its symbolic links lead in a circle");
  } finally {
    rmSync(folder, { recursive: true });
  }
  expect(describeFileError(new Error("the input ended"))).toBe("the input ended");
});
