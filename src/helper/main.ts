// Entry of `telepresence helper`, started as root with a connection to the user daemon as standard input.
import { runHelper } from "./run.ts";

void runHelper().then((code) => process.exit(code));
