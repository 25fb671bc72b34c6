// A file that a packet, a name or a command passes through says where it comes from and goes to (`@from`, `@to`).
// The tags of both ends must agree, and together they are exactly the walks of ARCHITECTURE.md, so the map cannot rot.
import { isProduct } from "./source.ts";
import type { Tree } from "./source.ts";

/** `from > to`, both paths below src/. */
type Step = string;

/** Both ends of a step name each other; a name without `.ts` is a place outside (a pod, a process). */
export function checkTags(files: Tree): readonly string[] {
  const [to, from] = [stepsByTag(files, "to"), stepsByTag(files, "from")];
  const missing = [...to, ...from].flatMap((step) => {
    const absent = step.split(" > ").filter((path) => !files.has(`src/${path}`));
    return absent.map((path) => `the hop ${step} names src/${path}, which does not exist`);
  });
  const oneSided = [
    ...[...to].filter((step) => !from.has(step)).map((step) => `${step}: the second file lacks the @from`),
    ...[...from].filter((step) => !to.has(step)).map((step) => `${step}: the first file lacks the @to`),
  ];
  return [...missing, ...oneSided];
}

/** The table's steps and the tags' are the same. */
export function checkWalks(files: Tree): readonly string[] {
  const drawn = drawnSteps(files.get("ARCHITECTURE.md") ?? "");
  const tagged = stepsByTag(files, "to");
  return [
    ...[...tagged].filter((step) => !drawn.has(step)).map((step) => `ARCHITECTURE.md does not show the step ${step}`),
    ...[...drawn].filter((step) => !tagged.has(step)).map((step) => `ARCHITECTURE.md shows ${step}; no @to says so`),
  ];
}

function stepsByTag(files: Tree, tag: "from" | "to"): ReadonlySet<Step> {
  const steps = new Set<Step>();
  for (const [path, text] of files) {
    if (!isProduct(path)) continue;
    const here = path.slice("src/".length);
    for (const match of text.matchAll(new RegExp(`^(?://| \\*) @${tag} (.*)$`, "gm"))) {
      const others = (match[1] ?? "").split(",").map((name) => name.trim());
      for (const other of others.filter((name) => name.endsWith(".ts"))) {
        steps.add(tag === "to" ? `${here} > ${other}` : `${other} > ${here}`);
      }
    }
  }
  return steps;
}

/** Rows that begin `| walk`, hops in back-ticks; what has no `.ts` is a place and carries no step. */
function drawnSteps(text: string): ReadonlySet<Step> {
  const table = /^\| walk \|[^]*?\n\n/m.exec(`${text}\n\n`)?.[0] ?? "";
  const steps = new Set<Step>();
  for (const row of table.split("\n")) {
    const hops = [...row.matchAll(/`([^`]+\.ts)`/g)].map((match) => match[1] ?? "");
    for (const [index, hop] of hops.slice(1).entries()) steps.add(`${hops[index]} > ${hop}`);
  }
  return steps;
}
