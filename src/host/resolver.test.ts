import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { ResolverWatch } from "./resolver-watch.ts";
import { chooseResolver, detectResolver } from "./resolver.ts";
import type { HostResolver, ResolverFiles } from "./resolver.ts";

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
    expect(chosen).toMatchObject({ mode: "nft", nameservers: ["192.0.2.9"], asked: ["192.0.2.9"] });
  });
  // The C library asks resolved through nss-resolve there, which asks the servers of the links.
  test("has resolved's own questions come to us too where programs may ask it beside resolv.conf", () => {
    const resolvedUpstreams = "nameserver 192.0.2.1\nnameserver 192.0.2.9\n";
    const chosen = chooseResolver({ resolvConf: "nameserver 192.0.2.9", resolvedUpstreams, resolvedRuns: false });
    expect(chosen).toEqual({ mode: "nft", nameservers: ["192.0.2.9"], asked: ["192.0.2.9", "192.0.2.1"] });
  });
  // Story: what a caching resolver asked its own nameservers came back to it through us, and every look-up waited.
  test.each([
    ["127.0.0.1", "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", ["127.0.0.1", "192.0.2.1"], ["127.0.0.1"]],
    ["both", "nameserver 192.0.2.1\nnameserver 127.0.0.1\n", ["192.0.2.1", "127.0.0.1"], ["192.0.2.1", "127.0.0.1"]],
    ["a stub that nobody owns", stub, ["127.0.0.53"], ["127.0.0.53"]],
  ])("does not have a local resolver's own questions come to us: %s", (_, resolvConf, nameservers, asked) => {
    const resolvedUpstreams = resolvConf === stub ? "nameserver 192.0.2.9\n" : undefined;
    const chosen = chooseResolver({ resolvConf, resolvedUpstreams, resolvedRuns: false });
    expect(chosen).toEqual({ mode: "nft", nameservers, asked });
  });
  test("is the redirect when a stub is named and nobody answers on the bus", () => {
    const chosen = chooseResolver({ resolvConf: stub, resolvedUpstreams: undefined, resolvedRuns: false });
    expect(chosen).toMatchObject({ mode: "nft", nameservers: ["127.0.0.53"] });
  });
});

describe("files", () => {
  let directory: string;
  let files: ResolverFiles;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "resolver-"));
    files = { resolvConf: join(directory, "resolv.conf"), resolvedUpstreams: join(directory, "none/resolv.conf") };
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const detect = async (): Promise<HostResolver> => detectResolver(systemClock, new AbortController().signal, files);

  test("a missing, an empty and a dangling resolv.conf mean this machine itself", async () => {
    expect(await detect()).toMatchObject({ mode: "nft", nameservers: ["127.0.0.1"] });
    writeFileSync(files.resolvConf, "");
    expect(await detect()).toMatchObject({ mode: "nft", nameservers: ["127.0.0.1"] });
    rmSync(files.resolvConf);
    symlinkSync(join(directory, "nowhere"), files.resolvConf);
    expect(await detect()).toMatchObject({ mode: "nft", nameservers: ["127.0.0.1"] });
  });

  test("a symbolic link leads to the file that counts", async () => {
    writeFileSync(join(directory, "stub-resolv.conf"), "nameserver 192.0.2.7\n");
    symlinkSync("stub-resolv.conf", files.resolvConf);
    expect(await detect()).toMatchObject({ mode: "nft", nameservers: ["192.0.2.7"] });
  });

  // Story: on another Wi-Fi the old network's nameserver was hooked still, and the new one's answers knew no cluster.
  test("a change is told once it is one, however the file was changed", async () => {
    writeFileSync(files.resolvConf, "nameserver 192.0.2.1\n");
    const told: (readonly string[])[] = [];
    const onChange = ({ nameservers }: HostResolver): void => void told.push(nameservers);
    const known = await detect();
    using watch = new ResolverWatch({ known, onChange, clock: systemClock, log: silentLogger, files });
    const next = async (count: number): Promise<unknown> => {
      await expect.poll(() => told.length, { timeout: 3000 }).toBe(count);
      return told.at(-1);
    };
    await new Promise((resolve) => setImmediate(resolve));
    // news of the network without a change
    watch.recheck();
    // renamed into its place, as editors and resolvconf do
    writeFileSync(join(directory, "new"), "# another comment\nnameserver 192.0.2.2\n");
    renameSync(join(directory, "new"), files.resolvConf);
    expect(await next(1)).toEqual(["192.0.2.2"]);
    // a link into another folder, and then that folder's file
    mkdirSync(join(directory, "run"));
    writeFileSync(join(directory, "run/resolv.conf"), "nameserver 192.0.2.3\n");
    rmSync(files.resolvConf);
    symlinkSync(join(directory, "run/resolv.conf"), files.resolvConf);
    expect(await next(2)).toEqual(["192.0.2.3"]);
    writeFileSync(join(directory, "run/resolv.conf"), "nameserver 192.0.2.4\n");
    expect(await next(3)).toEqual(["192.0.2.4"]);
  });
});
