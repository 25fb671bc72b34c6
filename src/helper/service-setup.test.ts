import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { softwareVersion } from "#base/version.ts";
import { installService, uninstallService, type ServicePlace } from "./service-setup.ts";

let base: string;
let source: string;
let place: ServicePlace;
let calls: string[];
let failing: string | undefined;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "service-"));
  source = join(base, "dist");
  for (const folder of ["node/bin", "helper", "node_modules/koffi", "cli"]) {
    mkdirSync(join(source, folder), { recursive: true });
  }
  for (const file of [
    "node/bin/node",
    "helper/start.js",
    "node_modules/koffi/index.js",
    "cli/main.js",
    "package.json",
  ]) {
    writeFileSync(join(source, file), file, { mode: file.includes("bin") ? 0o777 : 0o666 });
  }
  mkdirSync(join(base, "root"), { mode: 0o755 });
  calls = [];
  failing = undefined;
  place = {
    root: join(base, "root"),
    ownerUid: process.getuid?.() ?? 0,
    systemctl: async (...args) => {
      calls.push(args.join(" "));
      if (args.join(" ") === failing) throw new Error("systemd says no");
    },
  };
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const inside = (path: string): string => join(place.root, path);
const units = "/etc/systemd/system";
const program = "/opt/telepresence-helper";

test("what it makes is root's to change alone, and uninstalling leaves nothing", async () => {
  await installService(place, source, [1000, 1001]);
  expect(readFileSync(inside(`${program}/helper/start.js`), "utf8")).toBe("helper/start.js");
  expect(readFileSync(inside(`${program}/version`), "utf8")).toBe(`${softwareVersion}\n`);
  expect(statSync(inside(`${program}/node/bin/node`)).mode & 0o777).toBe(0o755);
  expect(statSync(inside(`${program}/helper/start.js`)).mode & 0o777).toBe(0o644);
  expect(existsSync(inside(`${program}/cli`))).toBe(false);
  const socket = readFileSync(inside(`${units}/telepresence-helper-1001.socket`), "utf8");
  expect(socket).toContain("ListenStream=/run/telepresence-helper/1001.sock\nSocketUser=1001\nSocketMode=0600\n");
  const service = readFileSync(inside(`${units}/telepresence-helper-1001@.service`), "utf8");
  expect(service).toContain(
    "ExecStart=/opt/telepresence-helper/node/bin/node -- /opt/telepresence-helper/helper/start.js service 1001\n",
  );
  expect(calls).toEqual([
    "daemon-reload",
    "enable --now telepresence-helper-1000.socket",
    "enable --now telepresence-helper-1001.socket",
  ]);

  calls.length = 0;
  expect(await uninstallService(place)).toBe(true);
  expect(calls).toContain("stop telepresence-helper-1000@*.service");
  expect(calls.at(-1)).toBe("daemon-reload");
  for (const path of [
    program,
    `${units}/telepresence-helper-1000.socket`,
    `${units}/telepresence-helper-1001@.service`,
  ]) {
    expect(existsSync(inside(path))).toBe(false);
  }
  expect(await uninstallService(place)).toBe(false);
});

test("installing again brings the program up to date and keeps the other users", async () => {
  await installService(place, source, [1000]);
  writeFileSync(join(source, "helper/start.js"), "newer");
  await installService(place, source, [1001]);
  expect(readFileSync(inside(`${program}/helper/start.js`), "utf8")).toBe("newer");
  expect(existsSync(inside(`${units}/telepresence-helper-1000.socket`))).toBe(true);
  expect(existsSync(inside(`${program}.old`))).toBe(false);
});

test("a failure leaves what was there before", async () => {
  failing = "enable --now telepresence-helper-1001.socket";
  await expect(installService(place, source, [1001])).rejects.toThrow("systemd says no");
  expect(existsSync(inside(program))).toBe(false);
  expect(existsSync(inside(`${units}/telepresence-helper-1001.socket`))).toBe(false);

  await installService(place, source, [1000]);
  writeFileSync(join(source, "helper/start.js"), "newer");
  await expect(installService(place, source, [1000, 1001])).rejects.toThrow("systemd says no");
  expect(readFileSync(inside(`${program}/helper/start.js`), "utf8")).toBe("helper/start.js");
  expect(existsSync(inside(`${units}/telepresence-helper-1000.socket`))).toBe(true);
  expect(existsSync(inside(`${units}/telepresence-helper-1001@.service`))).toBe(false);
});

test("no program of root's comes to be where others can write, or by a link", async () => {
  symlinkSync("/etc/shadow", join(source, "helper/secret"));
  await expect(installService(place, source, [1000])).rejects.toThrow("neither a file nor a folder");
  rmSync(join(source, "helper/secret"));
  chmodSync(inside("/opt"), 0o777);
  await expect(installService(place, source, [1000])).rejects.toThrow(/opt can be written to by others than root/);
  expect(existsSync(inside(program))).toBe(false);
  expect(calls).toEqual([]);
});

test("a link on the way is followed to where it leads", async () => {
  const elsewhere = join(base, "elsewhere/opt");
  mkdirSync(elsewhere, { recursive: true, mode: 0o755 });
  symlinkSync(elsewhere, inside("/opt"));
  chmodSync(join(base, "elsewhere"), 0o777);
  await expect(installService(place, source, [1000])).rejects.toThrow(
    /elsewhere can be written to by others than root/,
  );
  expect(readdirSync(elsewhere)).toEqual([]);
});

test("what a killed installation left is never taken for what was there before", async () => {
  await installService(place, source, [1000]);
  mkdirSync(inside(`${program}.old/helper`), { recursive: true });
  writeFileSync(inside(`${program}.old/helper/start.js`), "stale");
  symlinkSync("/nowhere", join(source, "helper/link"));
  await expect(installService(place, source, [1000])).rejects.toThrow("neither a file nor a folder");
  expect(readFileSync(inside(`${program}/helper/start.js`), "utf8")).toBe("helper/start.js");
  renameSync(inside(program), inside(`${program}.old`));
  await expect(installService(place, source, [1000])).rejects.toThrow("neither a file nor a folder");
  expect(readFileSync(inside(`${program}/helper/start.js`), "utf8")).toBe("helper/start.js");
});

test("a checkout is not copied", async () => {
  rmSync(join(source, "node"), { recursive: true });
  await expect(installService(place, source, [1000])).rejects.toThrow("is no installed telepresence");
});
