// Entry of `telepresence helper`, started as root with a connection to the user daemon as standard input; and of
// `telepresence helper enter`, started as the user in namespaces of its own, which makes a network and becomes the
// user's program.
import { enterPrivateNetwork } from "./private-network.ts";
import { runHelper } from "./run.ts";

const [verb, ...words] = process.argv.slice(2);
void (verb === "enter" ? enterPrivateNetwork(words) : runHelper()).then((code) => process.exit(code));
