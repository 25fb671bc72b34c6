import { PassThrough } from "node:stream";
import { describe, expect, test } from "vitest";
import { readAnswer } from "./answer.ts";

const never = new AbortController().signal;

describe("readAnswer()", () => {
  test("is the first line", async () => {
    const input = new PassThrough();
    input.write("ye");
    const answer = readAnswer(input, never);
    input.write("s\nno\n");
    expect(await answer).toBe("yes");
  });

  test("is nothing at the end of the input", async () => {
    const input = new PassThrough();
    const answer = readAnswer(input, never);
    input.end();
    expect(await answer).toBe("");
  });

  test("ends with the signal", async () => {
    const asking = new AbortController();
    const answer = readAnswer(new PassThrough(), asking.signal);
    asking.abort(new Error("interrupted"));
    await expect(answer).rejects.toThrow("interrupted");
  });
});
