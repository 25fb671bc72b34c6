import { describe, expect, test } from "vitest";
import { mergeWishes, withLocalAddresses } from "./wishes.ts";

describe("mergeWishes()", () => {
  test("takes the extension's word before config.yml's, key by key; its empty lists are none", () => {
    const extension = { includeSuffixes: [".corp"], excludeSuffixes: [], lookupTimeoutMs: undefined };
    const config = { includeSuffixes: [".lan"], excludeSuffixes: [".dev"], lookupTimeoutMs: 8000 };
    expect(mergeWishes(extension, config)).toEqual({
      includeSuffixes: [".corp"],
      excludeSuffixes: [".dev"],
      lookupTimeoutMs: 8000,
    });
    expect(mergeWishes({}, { excludeSuffixes: [] })).toEqual({ excludeSuffixes: [] });
  });
  test.each([
    [{ includeSuffixes: ["*.corp"] }, '"*.corp" is no suffix'],
    [{ excludes: ["a..b"] }, '"a..b" is no name'],
    [{ mappings: [{ name: "a b", aliasFor: "c" }] }, '"a b" is no name of a mapping'],
    [{ mappings: [{ name: "a", aliasFor: "http://c" }] }, '"http://c" is no alias of a mapping'],
    [{ localAddresses: ["resolver"] }, "resolver is no nameserver's address"],
  ])("refuses %j", (wishes, message) => {
    expect(() => mergeWishes({}, wishes)).toThrow(message);
  });
});

test("nameservers that the user names are asked, and what programs ask still comes to us", () => {
  const resolver = { mode: "nft", nameservers: ["127.0.0.1"], asked: ["127.0.0.1"] } as const;
  expect(withLocalAddresses(resolver, {})).toBe(resolver);
  expect(withLocalAddresses(resolver, { localAddresses: ["192.0.2.53"] })).toEqual({
    mode: "nft",
    nameservers: ["192.0.2.53"],
    asked: ["127.0.0.1"],
  });
});

// Story: a dnsmasq of this machine, named by dns.localIP, asked the nameserver of resolv.conf, and so us, who asked it.
test("what a nameserver of this machine's own asks in turn is for those of resolv.conf", () => {
  const resolver = { mode: "nft", nameservers: ["192.0.2.53"], asked: ["192.0.2.53"] } as const;
  const own = { localAddresses: ["127.0.0.1"] };
  expect(withLocalAddresses(resolver, own)).toEqual({
    mode: "nft",
    nameservers: ["127.0.0.1"],
    asked: ["192.0.2.53"],
    behind: ["192.0.2.53"],
  });
  expect(withLocalAddresses({ ...resolver, mode: "resolved" }, own)).not.toHaveProperty("behind");
  expect(withLocalAddresses({ ...resolver, nameservers: ["127.0.0.1"] }, own)).not.toHaveProperty("behind");
});
