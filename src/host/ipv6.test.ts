import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { devicesHaveIpv6 } from "./ipv6.ts";

test("devices have IPv6 unless it is switched off, or the kernel has none", () => {
  const dir = mkdtempSync(join(tmpdir(), "ipv6-"));
  const file = join(dir, "disable_ipv6");
  expect(devicesHaveIpv6(file)).toBe(false);
  const seen = ["0\n", "1\n"].map((text) => {
    writeFileSync(file, text);
    return devicesHaveIpv6(file);
  });
  expect(seen).toEqual([true, false]);
  rmSync(dir, { recursive: true });
});
