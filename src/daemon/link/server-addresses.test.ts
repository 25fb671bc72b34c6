import { describe, expect, test } from "vitest";
import { addressesOnTheWay } from "./server-addresses.ts";

const known: Readonly<Record<string, readonly string[]>> = {
  "api.example": ["203.0.113.5", "2001:db8::5", "203.0.113.5"],
  proxy: ["10.9.8.7"],
};
const find = (host: string): Promise<readonly string[]> =>
  known[host] === undefined ? Promise.reject(new Error("ENOTFOUND")) : Promise.resolve(known[host]);

describe("addressesOnTheWay()", () => {
  test.each([
    ["https://api.example:6443", undefined, ["203.0.113.5", "2001:db8::5"]],
    ["https://[2001:db8::1]:6443", undefined, ["2001:db8::1"]],
    ["https://api.example", "http://proxy:3128", ["10.9.8.7", "203.0.113.5", "2001:db8::5"]],
    // as HTTPS_PROXY may be written
    ["https://api.example", "proxy:3128", ["10.9.8.7", "203.0.113.5", "2001:db8::5"]],
    // a name that only the proxy resolves
    ["https://api.inside", "socks5://me:pw@10.9.8.7:1080", ["10.9.8.7"]],
  ])("%s by %s", async (server, proxyUrl, addresses) => {
    expect(await addressesOnTheWay({ server, proxyUrl }, find)).toEqual(addresses);
  });
  test("names the host that has no address", async () => {
    const hosts = (server: string, proxyUrl?: string): Promise<unknown> =>
      addressesOnTheWay({ server, proxyUrl }, find);
    await expect(hosts("https://api.inside")).rejects.toThrow("the cluster's host api.inside cannot be resolved");
    await expect(hosts("https://api.example", "http://gone:1")).rejects.toThrow("host gone cannot be resolved");
  });
});
