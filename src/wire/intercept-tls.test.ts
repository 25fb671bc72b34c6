import { expect, test } from "vitest";
import { certificateChoiceSchema, parseCertificateChoice } from "./intercept-tls.ts";

test("a certificate is named by its volume, and by its files where they are called otherwise", () => {
  expect(parseCertificateChoice("web-tls")).toEqual({ volume: "web-tls" });
  expect(parseCertificateChoice("web-tls:a/server.pem,server-key.pem")).toEqual({
    volume: "web-tls",
    certificateFile: "a/server.pem",
    keyFile: "server-key.pem",
  });
  for (const text of [
    "",
    ":",
    "a:",
    "a:b",
    "a:b,",
    "a:b,c,d",
    "a:b,c:d",
    "A",
    "../a",
    "a:../b,c",
    "a:/b,c",
    "a:b/../c,d",
  ]) {
    expect(parseCertificateChoice(text)).toBeUndefined();
  }
});

test("no file outside of the volume can be named", () => {
  for (const keyFile of ["..", "../x", "x/..", "x/../../y", "/x", "./x", "x//y", "x/", "x\0", "x y"]) {
    expect(certificateChoiceSchema.safeParse({ volume: "a", keyFile }).success).toBe(false);
  }
  expect(certificateChoiceSchema.safeParse({ volume: "a", keyFile: "..x/y..z" }).success).toBe(true);
});
