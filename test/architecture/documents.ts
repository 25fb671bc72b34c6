// Papers that would otherwise drift from the code: the version, the dependencies' reasons, the exit codes, the map.
import { errorCodes } from "#base/error.ts";
import type { Tree } from "./source.ts";

interface PackageJson {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly imports: Readonly<Record<string, string>>;
}

/** package.json and base/version.ts say the same version, and the change log has a place for the next one. */
export function checkVersion(files: Tree): readonly string[] {
  const { version } = packageJson(files);
  const inCode = /softwareVersion = "([^"]+)"/.exec(files.get("src/base/version.ts") ?? "")?.[1];
  return [
    ...(inCode === version ? [] : [`src/base/version.ts says ${inCode}; package.json says ${version}`]),
    ...(/^## Unreleased$/m.test(files.get("CHANGELOG.md") ?? "") ? [] : ['CHANGELOG.md lacks "## Unreleased"']),
  ];
}

/** Each dependency has a line that says what it is for and why it is not our own. */
export function checkDependencies(files: Tree): readonly string[] {
  const decisions = files.get("docs/decisions/README.md") ?? "";
  return Object.keys(packageJson(files).dependencies)
    .filter((name) => !decisions.includes(`| \`${name}\` |`))
    .map((name) => `docs/decisions/README.md has no line for the dependency ${name}`);
}

/** Scripts are written against exit codes, so each one stands in the README. */
export function checkExitCodes(files: Tree): readonly string[] {
  const readme = files.get("README.md") ?? "";
  const codes = [...new Set(Object.values(errorCodes).map((entry) => entry.exit))];
  return codes
    .filter((code) => !new RegExp(`^\\| ${code} \\|`, "m").test(readme))
    .map((code) => `README.md does not explain exit code ${code}`);
}

const maxMapLines = 300;

/** The map stays short enough to be read, and `#folder/` works for each folder. */
export function checkMap(files: Tree): readonly string[] {
  const lines = (files.get("ARCHITECTURE.md") ?? "").split("\n").length;
  const folders = new Set([...files.keys()].flatMap((path) => /^src\/([^/]+)\//.exec(path)?.[1] ?? []));
  const { imports } = packageJson(files);
  return [
    ...(lines > maxMapLines ? [`ARCHITECTURE.md has ${lines} lines; expected at most ${maxMapLines}`] : []),
    ...[...folders]
      .filter((folder) => imports[`#${folder}/*`] !== `./src/${folder}/*`)
      .map((folder) => `package.json "imports" lacks #${folder}/*`),
  ];
}

function packageJson(files: Tree): PackageJson {
  const empty = { version: "", dependencies: {}, imports: {} };
  return { ...empty, ...(JSON.parse(files.get("package.json") ?? "{}") as Partial<PackageJson>) };
}
