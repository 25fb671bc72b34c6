// Resolves the project's own imports in test workers without vitest's hook, which tells the main process of each: some ten
// thousand messages of a run, for a graph that only watching needs. Hooks that come last are asked first,
// so ours wait for its. Loaded by --import.
import module from "node:module";
import { readFileSync } from "node:fs";

const root = new URL("../", import.meta.url);

const folders = readFolders();
const register = module.registerHooks;
module.registerHooks = (theirs) => {
  module.registerHooks = register;
  const registered = register(theirs);
  register({
    resolve: (specifier, context, nextResolve) => {
      const url = ownUrl(specifier, context.parentURL);
      if (url === undefined) return nextResolve(specifier, context);
      return { url: url.href, format: "module-typescript", shortCircuit: true };
    },
  });
  return registered;
};

/** Of package.json's `imports`, by what stands before the "*". */
function readFolders(): ReadonlyMap<string, string> {
  const text = readFileSync(new URL("package.json", root), "utf8");
  const { imports } = JSON.parse(text) as { readonly imports: Readonly<Record<string, string>> };
  return new Map(Object.entries(imports).map(([name, target]) => [name.slice(0, -1), target.slice(0, -1)]));
}

/** Undefined for what is not a source of ours, imported by one of ours. */
function ownUrl(specifier: string, parent = ""): URL | undefined {
  if (!specifier.endsWith(".ts") || !parent.startsWith(root.href) || parent.includes("/node_modules/"))
    return undefined;
  if (specifier.startsWith(".")) return new URL(specifier, parent);
  const end = specifier.indexOf("/") + 1;
  const folder = folders.get(specifier.slice(0, end));
  return folder === undefined ? undefined : new URL(folder + specifier.slice(end), root);
}
