// How src/ becomes bundles: one esbuild run per program, so that no program carries another's code. What a bundle may
// hold is checked on esbuild's metafile by test/architecture.test.ts, which calls `bundle()` with `write: false`.
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import type { Metafile, Plugin } from "esbuild";

export const projectRoot = join(import.meta.dirname, "..");

export const programs = ["cli", "daemon", "helper", "manager", "agent", "cloud"] as const;
export type Program = (typeof programs)[number];

/** Native code cannot be bundled: koffi is laid beside the bundles by scripts/build.ts, `pg` works without its own. */
const externalPackages = ["koffi", "pg-native"];

/** Path of a program's entry, from the project's root. */
function entryOf(program: Program): string {
  return `src/${program}/main.ts`;
}

export interface BundleOptions {
  /** Folder of the bundle; nothing is written when it is left out. */
  readonly outDir?: string;
}

/**
 * zod brings its messages in 50 languages, and a program's start pays for reading them: 12 ms of 70. Ours are English.
 */
const englishOnly: Plugin = {
  name: "english-only",
  setup({ onLoad }) {
    onLoad({ filter: /[/\\]zod[/\\]v4[/\\]locales[/\\]index\.js$/ }, () => ({
      contents: 'export { default as en } from "./en.js";',
    }));
  },
};

/**
 * One program as one file, the text of a function that start.js calls (code-cache.ts): V8 takes compiled code for a
 * script, and Node for no ES module but through a cache folder of its own. What `import()` names is in the file too,
 * and still evaluated when it is first asked for.
 */
export function bundle(program: Program, options: BundleOptions = {}): Promise<Metafile> {
  return bundleFile(entryOf(program), options);
}

/** The same of any entry, whose path is the project's: programs of tests are started so, too. */
export async function bundleFile(entry: string, options: BundleOptions = {}): Promise<Metafile> {
  const { metafile } = await build({
    absWorkingDir: projectRoot,
    entryPoints: { main: entry },
    outdir: options.outDir ?? "dist",
    write: options.outDir !== undefined,
    metafile: true,
    bundle: true,
    format: "cjs",
    platform: "node",
    target: "node26",
    charset: "ascii",
    legalComments: "none",
    banner: { js: '(function (require, module, __filename, __dirname) { "use strict";' },
    footer: { js: "})" },
    // Only entries ask whether they are `main`.
    define: {
      "import.meta.main": "true",
      "import.meta.filename": "__filename",
      "import.meta.dirname": "__dirname",
    },
    external: externalPackages,
    plugins: [englishOnly],
    logLevel: "warning",
  });
  return metafile;
}

/** A page for a browser: a script, a style sheet, a document. */
interface PageSource {
  /** From the project's root. */
  readonly folder: string;
  readonly style: string;
  readonly document: string;
  /** Name of script and style sheet, without their ends. */
  readonly out: string;
}

/** The inspector's, as the daemon serves it, and the team's, as the cloud server does. */
const pages = {
  inspector: { folder: "src/dashboard", style: "app.css", document: "index.html", out: "app" },
  team: { folder: "src/dashboard/team", style: "dashboard.css", document: "dashboard.html", out: "dashboard" },
} as const satisfies Record<string, PageSource>;

export async function bundlePage(outDir: string, name: keyof typeof pages): Promise<Metafile> {
  const { folder, style, document, out } = pages[name];
  const { metafile } = await build({
    absWorkingDir: projectRoot,
    entryPoints: ["main.tsx", style].map((file) => ({ in: `${folder}/${file}`, out })),
    outdir: outDir,
    metafile: true,
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2023",
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    logLevel: "warning",
  });
  copyFileSync(join(projectRoot, folder, document), join(outDir, document));
  return metafile;
}
