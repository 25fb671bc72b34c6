import { describe, expect, test } from "vitest";
import { dialTransparent, socketAddress } from "./transparent-dial.ts";

describe("socketAddress()", () => {
  test("is a sockaddr_in", () => {
    const bytes = socketAddress({ address: "10.1.2.3", port: 0x1f90 });
    expect(Buffer.from(bytes).toString("hex")).toBe("0200" + "1f90" + "0a010203" + "0000000000000000");
  });

  test("is a sockaddr_in6", () => {
    const bytes = socketAddress({ address: "fd00::1", port: 80 });
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "0a00" + "0050" + "00000000" + "fd000000000000000000000000000001" + "00000000",
    );
  });

  test("takes nothing but addresses", () => {
    expect(() => socketAddress({ address: "fe80::1%eth0", port: 1 })).toThrow("is not an IP address");
  });
});

test("both ends have one address family", async () => {
  const { signal } = new AbortController();
  const dial = { from: { address: "::1", port: 0 }, to: { address: "127.0.0.1", port: 1 }, mark: 1, signal };
  await expect(dialTransparent(dial)).rejects.toThrow("not of one address family");
});
