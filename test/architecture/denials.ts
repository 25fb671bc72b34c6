// What only one folder or file may do, and how files are named. Each denial says why, because its text is what the
// next person reads.
import { codeOf, importsOf, isCode, isProduct } from "./source.ts";
import type { Tree } from "./source.ts";

interface Denial {
  readonly what: string;
  /** A module, or a pattern in the code. */
  readonly module?: RegExp;
  readonly code?: RegExp;
  /** Where it is denied; all of the product when left out. */
  readonly within?: RegExp;
  readonly except?: RegExp;
  readonly because: string;
}

export const denials: readonly Denial[] = [
  {
    what: "starting processes",
    module: /^(node:)?child_process$/,
    except: /^src\/host\//,
    because: "effects on the laptop are reviewed in one folder",
  },
  {
    what: "asking for the platform",
    code: /\bprocess\.platform\b|\bos\.(platform|type)\(/,
    except: /^src\/host\//,
    because: "each operating system's part sits behind host/",
  },
  {
    what: "foreign functions",
    module: /^koffi$/,
    except: /^src\/kernel\//,
    because: "a wrong pointer ends the process, so system calls are reviewed in one folder",
  },
  {
    what: "a Kubernetes client",
    module: /^@kubernetes\//,
    except: /^src\/kube\//,
    because: "one place to change its version, retries and permissions",
  },
  {
    what: "Node's I/O in pure code",
    module: /^node:(?!buffer$|assert$)/,
    within: /^src\/(filter|http|packet|wire)\//,
    because: "codecs are tested by properties and run at every end",
  },
  {
    what: "time or randomness in pure code",
    code: /\b(Date|Math\.random|crypto|performance|set(Timeout|Interval|Immediate))\b/,
    within: /^src\/(filter|http|packet|wire)\//,
    because: "the same bytes must always mean the same",
  },
  {
    what: "reading time or setting timers",
    code: /(?<!\.)\b(setTimeout|setInterval|Date\.now|performance\.now|AbortSignal\.timeout)\b|\bnew Date\(\)/,
    except: /^src\/(base\/clock\.ts$|dashboard\/)/,
    because: "every test owns time; only the page has its browser's",
  },
  {
    what: "promised timers",
    module: /^(node:)?timers(\/promises)?$/,
    because: "every test owns time; use Clock",
  },
  {
    what: "the environment",
    code: /\bprocess\.env\b/,
    except: /\/config\.ts$/,
    because: "configuration is parsed once",
  },
  {
    what: "ending the process",
    code: /\bprocess\.(exit|abort|kill\(process\.pid)\b/,
    except: /\/main\.ts$/,
    because: "whoever opened things must get to close them",
  },
  {
    what: "standard output",
    code: /\bprocess\.stdout\b|\bconsole\./,
    except: /^src\/(cli\/output|manager\/main|agent\/main|cloud\/main)\.ts$/,
    because: "people script against it, so it is written in one file; in the cluster it is the log",
  },
];

export function checkDenials(files: Tree): readonly string[] {
  const product = codeOf(files, isProduct);
  return denials.flatMap((denial) => {
    const applies = product.filter(
      ([path]) => denial.except?.test(path) !== true && (denial.within === undefined || denial.within.test(path)),
    );
    return applies
      .filter(([path, code]) => violates(denial, code, files.get(path) ?? ""))
      .map(([path]) => `${path}: ${denial.what} is denied here: ${denial.because}`);
  });
}

function violates(denial: Denial, code: string, text: string): boolean {
  if (denial.code?.test(code) === true) return true;
  const { module } = denial;
  return module !== undefined && importsOf(withoutTypeImports(text)).some((name) => module.test(name));
}

/** A type costs nothing at run time; the ladder's own rule still sees it. */
function withoutTypeImports(text: string): string {
  return text.replace(/\bimport type [^;]*;/g, "");
}

const goodName = /^[a-z0-9]+(-[a-z0-9]+)*(\.(linux|darwin|win32|fake|contract|test|bench))*\.(ts|mjs)$/;
/** `helper` in the singular is a program of this product, and files may be named for it. */
const vagueName = /^(index|types?|utils?|helpers|common|misc|shared|lib)(\.|-)|-(utils?|helpers?|common|misc|types)\./;

/** Kebab-case, and named for what is in it. */
export function checkNames(files: Tree): readonly string[] {
  return [...files.keys()].filter(isCode).flatMap((path) => {
    const name = path.slice(path.lastIndexOf("/") + 1);
    if (!goodName.test(name) && path !== "vitest.config.ts") return [`${path}: file names are kebab-case`];
    if (!vagueName.test(name)) return [];
    return [`${path}: name the file for what it holds; barrels and drawers are where clutter starts`];
  });
}

/** A file of the product opens by saying what it is. */
export function checkHeaders(files: Tree): readonly string[] {
  return [...files]
    .filter(([path, text]) => isProduct(path) && !/^(\/\/ |\/\*\*)/.test(text))
    .map(([path]) => `${path}: the first lines say what the file is, which hop or section, and its invariant`);
}
