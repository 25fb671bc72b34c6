// Who may import whom. A folder's README names the lower folders it may use; the rungs here keep a README from
// pointing upward, and a few folders may not be named at all by some, whatever their rung.
import { importsOf, isCode } from "./source.ts";
import type { Tree } from "./source.ts";

/** Lower numbers know nothing of higher ones; folders of one number do not know each other. */
export const rungs: Readonly<Record<string, number>> = {
  base: 0,
  http: 1,
  packet: 1,
  wire: 1,
  filter: 1,
  tunnel: 2,
  host: 2,
  kernel: 2,
  kube: 2,
  installer: 3,
  egress: 3,
  login: 3,
  helper: 4,
  daemon: 4,
  manager: 4,
  agent: 4,
  cloud: 4,
  cli: 5,
  dashboard: 5,
};

const never: Readonly<Record<string, { readonly folders: readonly string[]; readonly because: string }>> = {
  agent: { folders: ["kube", "host", "installer"], because: "it runs in every user's pod: size and privilege" },
  manager: { folders: ["kube", "installer"], because: "it has no Kubernetes permission" },
  helper: { folders: ["kube", "installer", "tunnel"], because: "root does nothing that a user could do" },
  cli: { folders: ["kube", "installer", "kernel"], because: "it asks the daemon, and starts fast" },
  dashboard: { folders: ["host", "kernel", "kube", "installer", "tunnel"], because: "it runs in a browser" },
};

const maxReadmeLines = 20;

/** Every folder of src/ has a README of at most 20 lines with one line `Imports:`. */
export function checkReadmes(files: Tree): readonly string[] {
  return foldersOf(files).flatMap((folder) => {
    const path = `src/${folder}/README.md`;
    const text = files.get(path);
    if (text === undefined) return [`${path} is missing; say purpose, first file, invariants, and "Imports: …"`];
    const lines = text.trimEnd().split("\n");
    const importLines = lines.filter((line) => line.startsWith("Imports: "));
    return [
      ...(lines.length > maxReadmeLines
        ? [`${path} has ${lines.length} lines; expected at most ${maxReadmeLines}`]
        : []),
      ...(importLines.length === 1 ? [] : [`${path} has ${importLines.length} lines "Imports: …"; expected one`]),
    ];
  });
}

/** A README may only name lower rungs, and nothing that is denied to its folder. */
export function checkRungs(files: Tree): readonly string[] {
  return foldersOf(files).flatMap((folder) => {
    const rung = rungs[folder];
    if (rung === undefined) return [`src/${folder} has no rung; add it to test/architecture/ladder.ts`];
    return allowedOf(files, folder).flatMap((name) => {
      const lower = rungs[name];
      const denied = never[folder];
      if (lower === undefined) return [`src/${folder}/README.md imports ${name}, and there is no such rung`];
      if (lower >= rung) return [`src/${folder} (rung ${rung}) may not import ${name} (rung ${lower})`];
      if (denied?.folders.includes(name) === true) return [`src/${folder} may never import ${name}: ${denied.because}`];
      return [];
    });
  });
}

/** Imports keep to the README's line. */
export function checkImports(files: Tree): readonly string[] {
  return eachImport(files, (path) => path.startsWith("src/")).flatMap(({ path, specifier }) => {
    const folder = path.split("/")[1] ?? "";
    const target = /^#([^/]+)\//.exec(specifier)?.[1];
    const known = files.has(`src/${folder}/README.md`); // a missing one is another guard's finding
    if (!known || target === undefined || target === folder || allowedOf(files, folder).includes(target)) return [];
    return [`${path} imports ${specifier}; src/${folder}/README.md does not allow ${target}`];
  });
}

/** `./` stays in its directory or goes down, everything else is `#folder/…`; nowhere is there a `../`. */
export function checkSpecifiers(files: Tree): readonly string[] {
  return eachImport(files, isCode).flatMap(({ path, specifier }) => {
    if (specifier.includes("../")) return [`${path} imports ${specifier}; write #folder/file.ts`];
    const ours = specifier.startsWith("./") || specifier.startsWith("#");
    return ours && !/\.(ts|mjs)$/.test(specifier)
      ? [`${path} imports ${specifier}; expected a file with its ending`]
      : [];
  });
}

/** The directions of a program never know each other; what they share is passed in. */
export function checkDirections(files: Tree): readonly string[] {
  const direction = /^(?:src\/|#)([^/]+)\/(outbound|inbound|dns)\//;
  return eachImport(files, (path) => direction.test(path)).flatMap(({ path, specifier }) => {
    const [, folder, from] = direction.exec(path) ?? [];
    const [, target, to] = direction.exec(specifier) ?? [];
    if (target !== folder || to === undefined || to === from) return [];
    return [`${path} imports ${specifier}; ${from} and ${to} meet only in the file that builds both`];
  });
}

/** The testbed and the scripts stand outside the product: it does not know them, and they do not run its programs' code. */
export function checkOutside(files: Tree): readonly string[] {
  const programs = new Set(Object.keys(rungs).filter((name) => (rungs[name] ?? 0) >= 4));
  return eachImport(files, (path) => isCode(path) && /^(testbed|scripts)\//.test(path)).flatMap(
    ({ path, specifier }) => {
      const target = /^#([^/]+)\//.exec(specifier)?.[1];
      if (target === undefined || !programs.has(target)) return [];
      return [`${path} imports ${specifier}; programs are started from dist/, not imported`];
    },
  );
}

function foldersOf(files: Tree): readonly string[] {
  const names = [...files.keys()].flatMap((path) => /^src\/([^/]+)\/.*\.ts$/.exec(path)?.[1] ?? []);
  return [...new Set(names)];
}

function allowedOf(files: Tree, folder: string): readonly string[] {
  const line = /^Imports: (.*)$/m.exec(files.get(`src/${folder}/README.md`) ?? "")?.[1] ?? "none";
  return line === "none" ? [] : line.split(",").map((name) => name.trim());
}

function eachImport(
  files: Tree,
  choose: (path: string) => boolean,
): readonly { readonly path: string; readonly specifier: string }[] {
  return [...files]
    .filter(([path]) => isCode(path) && choose(path))
    .flatMap(([path, text]) => importsOf(text).map((specifier) => ({ path, specifier })));
}
