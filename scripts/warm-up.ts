// Runs one bundle as its program would run, so that V8 compiles what a start needs, and writes the compiled code beside
// the bundle: `node warm-up.ts FOLDER ROUNDS [TOLD]`. ROUNDS is JSON, the arguments of each run; TOLD is what the program
// writes when it has started and is to be told to end. A program of its own, because a cache holds what this process ran.
// Nothing here may reach beyond this process: servers listen on any port of loopback.
import { writeFileSync } from "node:fs";
import { Server } from "node:net";
import { createRequire } from "node:module";
import { join } from "node:path";
import { readBundle } from "./code-cache.ts";

/** chosen: a warm-up that has not ended by then ends with what it has. */
const limitMs = 10_000;

const [folder = "", rounds = "[[]]", told] = process.argv.slice(2);
const { filename, script } = readBundle(folder);
const start = script.runInThisContext() as (...values: readonly unknown[]) => void;

const end = process.exit.bind(process);
const finish = (): never => {
  writeFileSync(join(folder, "main.cache"), script.createCachedData());
  return end(0);
};
setTimeout(finish, limitMs).unref();
process.on("beforeExit", finish);
listenAnywhere();
if (told !== undefined) endWhenTold(told);
for (const words of JSON.parse(rounds) as readonly (readonly string[])[]) await run(words);
finish();

/** Until the program would end the process. */
function run(words: readonly string[]): Promise<void> {
  process.argv = [process.execPath, filename, ...words];
  return new Promise((resolve) => {
    process.exit = (() => resolve()) as typeof process.exit;
    start(createRequire(filename), {}, filename, folder);
  });
}

function endWhenTold(told: string): void {
  const write = process.stdout.write.bind(process.stdout) as (chunk: string) => boolean;
  process.stdout.write = ((chunk: string) => {
    if (chunk.includes(told)) setImmediate(() => process.emit("SIGTERM"));
    return write(chunk);
  }) as typeof process.stdout.write;
}

function listenAnywhere(): void {
  const listen = Server.prototype.listen as (this: Server, ...values: readonly unknown[]) => Server;
  function listenHere(this: Server, where: unknown, ...more: readonly unknown[]): Server {
    const callbacks = more.filter((value) => typeof value === "function");
    if (typeof where === "string" && where.startsWith("/")) return listen.call(this, where, ...callbacks);
    const options = typeof where === "object" ? where : {};
    return listen.call(this, { ...options, port: 0, host: "127.0.0.1" }, ...callbacks);
  }
  Server.prototype.listen = listenHere as typeof Server.prototype.listen;
}
