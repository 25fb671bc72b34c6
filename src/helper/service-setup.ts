// Setting the helper up as a service, and removing it: root's own copy of the program in a folder that nobody else can
// write to, and systemd's units for the users who may use it. Either all of it is there afterwards, or what was there
// before.
import { lstatSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { chmodSync, constants, copyFileSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { AppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import { helperServiceDirectory, helperServiceProgram } from "#wire/helper-service.ts";
import { helperServiceUnit, userOfHelperUnit } from "#wire/helper-service.ts";
import { sessionUnit, unitFiles } from "./service-units.ts";

export interface ServicePlace {
  /** In front of every path; the root directory but in tests. */
  readonly root: string;
  /** Whose everything has to be. */
  readonly ownerUid: number;
  /** Runs systemctl to its end, and rejects with what it said. */
  readonly systemctl: (...args: readonly string[]) => Promise<void>;
}

const unitFolder = "/etc/systemd/system";
/** What the helper needs of an installation. */
const parts = ["helper", "node", "node_modules", "package.json"] as const;

/** `source` is an installation's folder; users that it was set up for before stay. */
export async function installService(place: ServicePlace, source: string, uids: readonly number[]): Promise<void> {
  if (!existsSync(join(source, "node", "bin", "node"))) {
    throw new AppError("unsupported", `${source} is no installed telepresence`, {
      hint: "build it with `npm run build` and use dist/bin/telepresence",
    });
  }
  const before = installedUsers(place);
  const program = join(place.root, helperServiceProgram);
  const [fresh, old] = [`${program}.new`, `${program}.old`];
  checkFolder(place, dirname(program));
  // An installation that was killed left both, or the former one alone.
  if (existsSync(program)) remove(old);
  else if (existsSync(old)) renameSync(old, program);
  try {
    copyProgram(source, fresh);
    if (existsSync(program)) renameSync(program, old);
    renameSync(fresh, program);
    writeUnits(place, uids);
    await place.systemctl("daemon-reload");
    for (const uid of uids) await place.systemctl("enable", "--now", helperServiceUnit(uid));
    remove(old);
  } catch (error) {
    remove(fresh);
    const added = installedUsers(place).filter((uid) => !before.includes(uid));
    await takeBack(place, { program, old }, added);
    throw error;
  }
}

/** True when there was something to remove. */
export async function uninstallService(place: ServicePlace): Promise<boolean> {
  const program = join(place.root, helperServiceProgram);
  const uids = installedUsers(place);
  const wasThere = uids.length > 0 || existsSync(program);
  await removeUnits(place, uids);
  for (const path of [program, `${program}.new`, `${program}.old`, join(place.root, helperServiceDirectory)]) {
    remove(path);
  }
  return wasThere;
}

function installedUsers({ root }: ServicePlace): readonly number[] {
  const folder = join(root, unitFolder);
  return existsSync(folder) ? readdirSync(folder).flatMap((file) => userOfHelperUnit(file) ?? []) : [];
}

/** What was there before; nothing if there was nothing. */
async function takeBack(
  place: ServicePlace,
  { program, old }: { readonly program: string; readonly old: string },
  uids: readonly number[],
): Promise<void> {
  await removeUnits(place, uids).catch(() => undefined); // the first error is the one that tells
  if (existsSync(old)) {
    remove(program);
    renameSync(old, program);
  } else if (installedUsers(place).length === 0) remove(program);
}

function writeUnits({ root }: ServicePlace, uids: readonly number[]): void {
  const folder = join(root, unitFolder);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  for (const { name, text } of uids.flatMap(unitFiles)) {
    const fresh = join(folder, `.${name}.new`);
    writeFileSync(fresh, text, { mode: 0o644 });
    renameSync(fresh, join(folder, name));
  }
}

async function removeUnits(place: ServicePlace, uids: readonly number[]): Promise<void> {
  if (uids.length === 0) return;
  for (const uid of uids) {
    await place.systemctl("disable", "--now", helperServiceUnit(uid));
    await place.systemctl("stop", sessionUnit(uid).replace("@", "@*"));
    for (const { name } of unitFiles(uid)) remove(join(place.root, unitFolder, name));
  }
  await place.systemctl("daemon-reload");
}

const remove = (path: string): void => rmSync(path, { recursive: true, force: true });

/** Who may write to a folder on the way to the program may put another one in its place; so it is where links lead. */
function checkFolder(place: ServicePlace, folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  checkWay(place, folder, place.root);
  checkWay(place, realpathSync(folder), realpathSync(place.root));
}

function checkWay({ ownerUid }: ServicePlace, folder: string, top: string): void {
  for (let path = folder; ; path = dirname(path)) {
    const { uid, mode } = statSync(path);
    if (uid !== ownerUid || (mode & 0o022) !== 0) {
      throw new AppError(
        "denied",
        `${path} can be written to by others than root, so no program of root's can be there`,
        {
          hint: `make it root's: \`chown root:root ${path} && chmod go-w ${path}\``,
        },
      );
    }
    if (path === top || path === dirname(path)) return;
  }
}

function copyProgram(source: string, target: string): void {
  remove(target);
  mkdirSync(target, { mode: 0o755 });
  for (const part of parts) copyTree(join(source, part), join(target, part));
  writeFileSync(join(target, "version"), `${softwareVersion}\n`, { mode: 0o644 });
}

/** Copies of contents only: a link, hard or symbolic, would leave the file its owner's. */
function copyTree(from: string, to: string): void {
  const found = lstatSync(from);
  if (found.isDirectory()) {
    mkdirSync(to, { mode: 0o755 });
    for (const name of readdirSync(from)) copyTree(join(from, name), join(to, name));
  } else if (found.isFile()) {
    copyFileSync(from, to, constants.COPYFILE_EXCL);
    chmodSync(to, (found.mode & 0o111) === 0 ? 0o644 : 0o755);
  } else {
    throw new AppError("unsupported", `${from} is neither a file nor a folder, so it is not copied`);
  }
}
