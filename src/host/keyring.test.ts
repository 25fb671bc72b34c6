// The keyring by a `secret-tool` that keeps its secrets in a file: what it is given, and that argv has no secret.
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { mayHaveKeyring, openKeyring } from "./keyring.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-keyring-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("stores, reads and removes by standard input and output", async () => {
  const tool = join(folder, "secret-tool");
  writeFileSync(
    tool,
    `#!/bin/sh
echo "$@" >> ${folder}/words
case $1 in
  store) cat > ${folder}/secret ;;
  lookup) cat ${folder}/secret ;;
  clear) rm ${folder}/secret ;;
esac
`,
  );
  chmodSync(tool, 0o755);
  const keyring = openKeyring({ PATH: `${folder}:/usr/bin:/bin` }, systemClock);
  expect(await keyring.store("https://a", "the secret")).toBe(true);
  expect(await keyring.read("https://a")).toBe("the secret");
  await keyring.remove("https://a");
  expect(await keyring.read("https://a")).toBeUndefined();
  expect(readFileSync(join(folder, "words"), "utf8")).not.toContain("the secret");
});

test("without the program nothing is stored", async () => {
  const keyring = openKeyring({ PATH: "/nonexistent" }, systemClock);
  expect(await keyring.store("https://a", "x")).toBe(false);
  expect(await keyring.read("https://a")).toBeUndefined();
});

test("a session bus is asked for", () => {
  expect(mayHaveKeyring({})).toBe(false);
  expect(mayHaveKeyring({ DBUS_SESSION_BUS_ADDRESS: "unix:path=/run/bus" })).toBe(true);
});
