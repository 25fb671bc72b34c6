import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { chooseResolver, detectResolver } from "./resolver.ts";

const stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n";

describe("chooseResolver()", () => {
  test("is resolved when it runs and programs ask its stub; upstreams are resolved's own", () => {
    const chosen = chooseResolver({
      resolvConf: stub,
      resolvedUpstreams: "nameserver 192.0.2.1\n",
      resolvedRuns: true,
    });
    expect(chosen).toMatchObject({ mode: "resolved", nameservers: ["192.0.2.1"] });
  });
  test("keeps the stub as upstream when resolved does not say its own", () => {
    const chosen = chooseResolver({ resolvConf: stub, resolvedUpstreams: undefined, resolvedRuns: true });
    expect(chosen.nameservers).toEqual(["127.0.0.53"]);
  });
  test("is the redirect when resolved runs but resolv.conf names others", () => {
    const chosen = chooseResolver({ resolvConf: "nameserver 192.0.2.9", resolvedUpstreams: "", resolvedRuns: true });
    expect(chosen).toMatchObject({ mode: "nft", nameservers: ["192.0.2.9"] });
  });
  test("is the redirect when a stub is named and nobody answers on the bus", () => {
    const chosen = chooseResolver({ resolvConf: stub, resolvedUpstreams: undefined, resolvedRuns: false });
    expect(chosen).toMatchObject({ mode: "nft", nameservers: ["127.0.0.53"] });
  });
});

describe("detectResolver()", () => {
  test("reads the files, and says when there is no nameserver", async () => {
    const directory = mkdtempSync(join(tmpdir(), "resolver-"));
    const files = { resolvConf: join(directory, "resolv.conf"), resolvedUpstreams: join(directory, "none") };
    const signal = new AbortController().signal;
    await expect(detectResolver(systemClock, signal, files)).rejects.toThrow("names no nameserver");
    writeFileSync(files.resolvConf, "nameserver 192.0.2.7\n");
    expect(await detectResolver(systemClock, signal, files)).toMatchObject({ mode: "nft", nameservers: ["192.0.2.7"] });
    rmSync(directory, { recursive: true });
  });
});
