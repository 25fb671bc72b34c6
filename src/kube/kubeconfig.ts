// Kubeconfig files as kubectl reads them: each parsed, its relative paths made absolute against its own directory,
// then merged: the first file that names a cluster, user or context wins, and so does the first current-context.
import { AppError } from "#base/error.ts";
import { dirname, isAbsolute, join } from "node:path";
import { parse } from "yaml";

type Fields = Readonly<Record<string, unknown>>;

export interface NamedEntry {
  readonly fields: Fields;
  /** Directory of the file it stands in. */
  readonly directory: string;
}

export interface MergedConfig {
  readonly currentContext: string;
  readonly contexts: ReadonlyMap<string, NamedEntry>;
  readonly clusters: ReadonlyMap<string, NamedEntry>;
  readonly users: ReadonlyMap<string, NamedEntry>;
}

export interface ConfigFile {
  readonly path: string;
  readonly text: string;
}

const pathKeys = new Set(["certificate-authority", "client-certificate", "client-key", "tokenFile"]);

/** Merges files in order of precedence. An empty file is legal. */
export function mergeConfigs(files: readonly ConfigFile[]): MergedConfig {
  const contexts = new Map<string, NamedEntry>();
  const clusters = new Map<string, NamedEntry>();
  const users = new Map<string, NamedEntry>();
  let currentContext = "";
  for (const file of files) {
    const root = parseFile(file);
    if (currentContext === "") currentContext = text(root["current-context"]) ?? "";
    addEntries(contexts, root["contexts"], "context", file);
    addEntries(clusters, root["clusters"], "cluster", file);
    addEntries(users, root["users"], "user", file);
  }
  return { currentContext, contexts, clusters, users };
}

function parseFile(file: ConfigFile): Fields {
  let root: unknown;
  try {
    root = parse(file.text);
  } catch (error) {
    throw invalid(file.path, `is not valid YAML: ${firstLine(error)}`, error);
  }
  if (root === null || root === undefined) return {};
  if (!isFields(root)) throw invalid(file.path, "is not a kubeconfig: its top is not a mapping");
  if (root["kind"] !== undefined && root["kind"] !== "Config") {
    throw invalid(file.path, `is not a kubeconfig: its kind is ${JSON.stringify(root["kind"])}, not "Config"`);
  }
  return root;
}

function addEntries(into: Map<string, NamedEntry>, list: unknown, key: string, file: ConfigFile): void {
  if (list === undefined || list === null) return;
  if (!Array.isArray(list)) throw invalid(file.path, `has ${key}s that are not a list`);
  const directory = dirname(file.path);
  for (const item of list as readonly unknown[]) {
    if (!isFields(item) || typeof item["name"] !== "string") {
      throw invalid(file.path, `has an entry without a name among its ${key}s`);
    }
    const fields = isFields(item[key]) ? item[key] : {};
    if (!into.has(item["name"])) into.set(item["name"], { fields: absolutePaths(fields, directory), directory });
  }
}

function absolutePaths(fields: Fields, directory: string): Fields {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [
      key,
      pathKeys.has(key) && typeof value === "string" && value !== "" && !isAbsolute(value)
        ? join(directory, value)
        : value,
    ]),
  );
}

function invalid(path: string, what: string, cause?: unknown): AppError {
  return new AppError("kubeconfig_invalid", `kubeconfig ${path} ${what}`, { cause, hint: "mend the file" });
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split("\n")[0] ?? "";
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A non-empty string (numbers are taken as written), else undefined. */
export function text(value: unknown): string | undefined {
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value !== "" ? value : undefined;
}

export function textList(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === "string" && item !== "") : [];
}
