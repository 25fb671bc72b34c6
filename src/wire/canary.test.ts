import { describe, expect, test } from "vitest";
import {
  canaryPath,
  decodeCanaryAnswer,
  decodeCanaryRequest,
  encodeCanaryAnswer,
  encodeCanaryRequest,
} from "./canary.ts";

const nonce = "0f".repeat(16);
const proof = "ab".repeat(32);
const bytes = (text: string): Buffer => Buffer.from(text);

describe("a canary", () => {
  const request = encodeCanaryRequest({ nonce, proof }, "10.1.2.3:8080");

  test("is a request that any server of HTTP understands, and comes back as it went", () => {
    expect(request.toString()).toBe(
      `GET ${canaryPath} HTTP/1.1\r\nHost: 10.1.2.3:8080\r\ntelepresence-canary: ${nonce} ${proof}\r\nConnection: close\r\n\r\n`,
    );
    expect(decodeCanaryRequest(request)).toEqual({ nonce, proof });
  });

  test("is known with what a proxy makes of it", () => {
    const head = `GET ${canaryPath} HTTP/1.1\r\nhost: web\r\nx-request-id: 7\r\nTelepresence-Canary:${nonce} ${proof} \r\n\r\n`;
    expect(decodeCanaryRequest(bytes(head))).toEqual({ nonce, proof });
  });

  test.each([
    ["is not there whole", request.subarray(0, -2)],
    ["has another path", bytes(request.toString().replace(canaryPath, "/"))],
    ["has another method", bytes(request.toString().replace("GET", "PUT"))],
    ["has no header", bytes(request.toString().replace("telepresence-canary", "x"))],
    ["has a short nonce", bytes(request.toString().replace(nonce, "0f"))],
    ["has no proof", bytes(request.toString().replace(proof, ""))],
    [
      "has its header in the body",
      bytes(`GET ${canaryPath} HTTP/1.1\r\n\r\n\r\ntelepresence-canary: ${nonce} ${proof}\r\n\r\n`),
    ],
    ["is nothing", Buffer.alloc(0)],
  ])("is none when it %s", (_, some) => {
    expect(decodeCanaryRequest(some)).toBeUndefined();
  });
});

describe("an answer", () => {
  const answer = encodeCanaryAnswer({ podUid: "uid-1", proof });

  test("of an agent names its pod", () => {
    expect(decodeCanaryAnswer(answer)).toEqual({ status: 200, canary: { podUid: "uid-1", proof } });
  });

  test("is waited for until its head is there", () => {
    for (let length = 0; length < answer.length; length += 1) {
      expect(decodeCanaryAnswer(answer.subarray(0, length))).toBe("more");
    }
  });

  test("of somebody else is a status, or nothing", () => {
    expect(decodeCanaryAnswer(bytes("HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\nno such page"))).toEqual({
      status: 404,
    });
    expect(decodeCanaryAnswer(bytes("220 mail.example.com ESMTP\r\n"))).toBeUndefined();
    expect(decodeCanaryAnswer(bytes(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(9000)}`))).toBeUndefined();
    expect(decodeCanaryAnswer(bytes(`HTTP/1.1 200 OK\r\ntelepresence-canary: uid-1 nonsense\r\n\r\n`))).toEqual({
      status: 200,
    });
  });
});
