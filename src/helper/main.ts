// Entry of `telepresence helper`, started as root with a connection to the user daemon as standard input, by the command
// line or, `service UID`, by systemd; of `helper setup`, which has systemd do so; and of `helper enter`, started as the
// user in namespaces of its own, which makes a network and becomes the user's program.
import { enterPrivateNetwork } from "./private-network.ts";
import { runHelper } from "./run.ts";
import { runSetup } from "./setup.ts";

const [verb, ...words] = process.argv.slice(2);

function run(): Promise<number> {
  if (verb === "enter") return enterPrivateNetwork(words);
  if (verb === "setup") return runSetup(words);
  return runHelper(verb === "service" ? Number(words[0]) : undefined);
}

void run().then((code) => process.exit(code));
