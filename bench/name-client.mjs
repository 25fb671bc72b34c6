// Runs on the laptop: `name-client.mjs NAMES SUFFIX` asks the system's nameserver for n0SUFFIX, n1SUFFIX, … and prints the
// median time (ms) of a name that was not asked for before, of one that was, and how many of 1,000 look-ups at once fail.
import { Resolver } from "node:dns/promises";

const [, , count, suffix] = process.argv;
// Programs have a socket for each of their look-ups; a single one would lose answers by itself.
const resolvers = Array.from({ length: 50 }, () => new Resolver({ timeout: 5000, tries: 1 }));
const names = Array.from({ length: Number(count) }, (_, index) => `n${index}${suffix}`);
const median = (values) => values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)];
const timed = async (name, index = 0) => {
  const startMs = performance.now();
  await resolvers[index % resolvers.length].resolve4(name);
  return performance.now() - startMs;
};
await timed(`target${suffix}`); // warm
const [first, cached] = [[], []];
for (const name of names) first.push(await timed(name));
for (let round = 0; round < 1000; round++) cached.push(await timed(names[0]));
const all = await Promise.allSettled(
  Array.from({ length: 1000 }, (_, index) => timed(names[index % names.length], index)),
);
const lost = all.filter(({ status }) => status === "rejected").length;
process.stdout.write(JSON.stringify({ firstMs: median(first), cachedMs: median(cached), lost }));
