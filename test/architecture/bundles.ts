// What a bundle may hold, and what of it a start may evaluate, read from esbuild's metafile: the ladder says who may
// import whom, this says what ships.
import type { Program } from "#scripts/bundle.ts";

/** The part of a metafile that counts. */
export interface BundleContent {
  readonly inputs: Readonly<
    Record<string, { readonly imports?: readonly { readonly path: string; readonly kind: string }[] }>
  >;
}

interface BundleRule {
  readonly denied: RegExp;
  readonly because: string;
}

const everywhere: BundleRule = {
  denied: /\.(test|fake|contract)\.ts$|^(test|testbed|scripts|bench)\//,
  because: "test code never ships",
};
const noCluster: BundleRule = {
  denied: /^src\/(kube|installer)\/|\/@kubernetes\//,
  because: "only the daemon speaks to Kubernetes",
};
const noHost: BundleRule = { denied: /^src\/host\//, because: "there is no laptop in a pod" };

const rules: Readonly<Record<Program, readonly BundleRule[]>> = {
  cli: [
    everywhere,
    noCluster,
    { denied: /^src\/(kernel|daemon|helper|cloud|tunnel\/(?!rpc))/, because: "the CLI only asks" },
    {
      denied: /^node_modules\/(hono|@hono|pg|openid-client|oauth4webapi|jose)\//,
      because: "servers are another program",
    },
  ],
  daemon: [everywhere],
  helper: [everywhere, noCluster, { denied: /^src\/(tunnel|daemon|cli)\//, because: "root runs as little as can be" }],
  manager: [everywhere, noCluster, noHost],
  agent: [everywhere, noCluster, noHost],
  cloud: [everywhere, noCluster, noHost],
};

export function checkBundle(program: Program, content: BundleContent): readonly string[] {
  return rules[program].flatMap((rule) =>
    Object.keys(content.inputs)
      .filter((path) => rule.denied.test(path))
      .map((path) => `the ${program} bundle holds ${path}: ${rule.because}`),
  );
}

/** What only some commands, or only some agents, need. */
const startRules: Readonly<Partial<Record<Program, { readonly from: string } & BundleRule>>> = {
  cli: {
    from: "src/cli/main.ts",
    denied: /^src\/(filter|host)\/|\/node_modules\/|^node_modules\/(?!commander\/)/,
    because: "a command loads what it needs itself",
  },
  agent: { from: "src/agent/agent.ts", denied: /^src\/kernel\/nft/, because: "most agents redirect nothing" },
};

/** Follows the imports that are not lazy. */
export function checkStart(program: Program, { inputs }: BundleContent): readonly string[] {
  const rule = startRules[program];
  if (rule === undefined) return [];
  const evaluated = new Set([rule.from]);
  for (const path of evaluated) {
    for (const { path: next, kind } of inputs[path]?.imports ?? []) if (kind !== "dynamic-import") evaluated.add(next);
  }
  return [...evaluated]
    .filter((path) => rule.denied.test(path))
    .map((path) => `the start of ${program} evaluates ${path}: ${rule.because}`);
}
