// What this process takes back before another program takes its place (execve(2)): the program is to find signals and
// privilege as if it had been started by the user's shell.
import { checkCall, libc } from "./ffi.ts";

const capAmbient = 47;
const clearAll = 4;
const standard = 0;
/** SIGPIPE, SIGXFSZ: Node ignores them, and what is ignored stays so. */
const ignoredByNode = [13, 25];

export function prepareSuccessor(): void {
  const c = libc();
  checkCall(c.prctl(capAmbient, clearAll), "unsupported", "giving privilege up");
  for (const number of ignoredByNode) c.signal(number, standard);
}
