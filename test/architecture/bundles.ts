// What a bundle may hold, read from esbuild's metafile: the ladder says who may import whom, this says what ships.
import type { Program } from "#scripts/bundle.ts";

/** The part of a metafile that counts. */
export interface BundleContent {
  readonly inputs: Readonly<Record<string, unknown>>;
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
    { denied: /^src\/(kernel|daemon|helper|tunnel\/(?!rpc))/, because: "the CLI only asks" },
  ],
  daemon: [everywhere],
  helper: [everywhere, noCluster, { denied: /^src\/(tunnel|daemon|cli)\//, because: "root runs as little as can be" }],
  manager: [everywhere, noCluster, noHost],
  agent: [everywhere, noCluster, noHost],
};

export function checkBundle(program: Program, content: BundleContent): readonly string[] {
  return rules[program].flatMap((rule) =>
    Object.keys(content.inputs)
      .filter((path) => rule.denied.test(path))
      .map((path) => `the ${program} bundle holds ${path}: ${rule.because}`),
  );
}
