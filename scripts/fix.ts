// `npm run fix`: what a tool can put right by itself: lint with a safe fix, then the format.
import { runInherited } from "./process.ts";

const lint = await runInherited("oxlint", ["--fix"]);
const format = await runInherited("oxfmt", []);
process.exitCode = lint === 0 && format === 0 ? 0 : 1;
