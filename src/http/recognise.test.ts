import { describe, expect, test } from "vitest";
import { greetsHttp2, recogniseHttp } from "./recognise.ts";

describe("recogniseHttp()", () => {
  test.each([
    ["GET / HTTP/1.1\r\n", "http1"],
    ["\r\nPOST /a?b=c HTTP/1.0\r\nHost", "http1"],
    ["GET / HTTP/1.1\n", "http1"],
    ["", "more"],
    ["\r", "more"],
    ["GE", "more"],
    ["GET / HT", "more"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", "http2"],
    ["P", "more"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n", "more"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\n", "other"],
    ["PRI * HTTP/1.1\r\n", "other"],
    ["PING\r\n", "other"],
    ["get key\r\n", "other"],
    ["GET key\r\n", "other"],
    ['CONNECT {"verbose":false}\r\n', "other"],
    ["HELO there\r\n", "other"],
    ["*1\r\n$4\r\nPING\r\n", "other"],
    ["\x16\x03\x01\x02", "other"],
    ["\0\0\0\x08\x04\xd2\x16\x2f", "other"],
  ])("takes %j for %s", (text, expected) => {
    expect(recogniseHttp(Buffer.from(text, "latin1"))).toBe(expected);
  });

  test("does not wait for the end of an endless line", () => {
    expect(recogniseHttp(Buffer.from(`GET /${"a".repeat(20_000)}`))).toBe("other");
  });
});

describe("greetsHttp2()", () => {
  test.each([
    ["\0\0\0\x04\0\0\0\0\0", true],
    ["\0\0\x0c\x04\0\0\0\0\0\0\x03\0\0\0\x64", true],
    ["\0\0\0\x04\x01\0\0\0\0", false],
    ["\0\0\x05\x04\0\0\0\0\0", false],
    ["\0\0\0\x04\0\0\0\0\x01", false],
    ["\0\0\0\x04", false],
    ["220 mail ready\r\n", false],
    ["SSH-2.0-OpenSSH\r\n", false],
  ])("of %j is %s", (text, expected) => {
    expect(greetsHttp2(Buffer.from(text, "latin1"))).toBe(expected);
  });
});
