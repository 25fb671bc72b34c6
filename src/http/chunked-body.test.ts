import { describe, expect, test } from "vitest";
import { decodeChunked } from "./chunked-body.ts";

describe("decodeChunked()", () => {
  test.each([
    ["0\r\n\r\n", ""],
    ["3\r\nabc\r\n0\r\n\r\n", "abc"],
    ["3;x=y\r\nabc\r\nA\r\n0123\r\n6789\r\n000\r\nTrailer: 5\r\n\r\n", "abc0123\r\n6789"],
  ])("of %j is what was sent", (body, content) => {
    expect(decodeChunked(Buffer.from(body)).toString()).toBe(content);
  });
});
