// Asks the agent behind the door of that name to end an intercept, and prints the answer: as the agent's own program does,
// or, told to be `rude`, without a look at who listens.
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { askToRevoke } from "#agent/container-door.ts";
import { systemClock } from "#base/clock.ts";

const [name = "", by = "", manners] = process.argv.slice(2);
const revocation = { id: "s:hello", by };
if (manners === "rude") {
  const socket = connect({ path: `\0${name}` });
  socket.write(`${JSON.stringify(revocation)}\n`);
  process.stdout.write(await text(socket));
} else {
  process.stdout.write(JSON.stringify(await askToRevoke(name, revocation, systemClock)));
}
