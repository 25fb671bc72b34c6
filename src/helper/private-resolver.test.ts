import { expect, test } from "vitest";
import { withNameserver } from "./private-resolver.ts";

test.each([
  [
    "nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a.example\noptions ndots:2\n",
    "search a.example\noptions ndots:2\n",
  ],
  ["# nameserver 1.1.1.1\nnameserver\t10.0.0.1", "# nameserver 1.1.1.1\n"],
  ["", ""],
])("%j keeps all but its nameservers", (before, kept) => {
  expect(withNameserver(before, "246.246.0.4")).toBe(`nameserver 246.246.0.4\n${kept}`);
});
