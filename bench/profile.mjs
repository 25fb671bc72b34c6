// Runs in the network namespace of a Node process: `profile.mjs PID SECONDS` has it open its inspector (SIGUSR1), prints a
// profile of its processor time (V8's .cpuprofile), and closes the inspector again.
import { setTimeout as sleep } from "node:timers/promises";

const [, , pid, seconds] = process.argv;
const [host, port] = ["127.0.0.1", 9229];
process.kill(Number(pid), "SIGUSR1");

async function address() {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    try {
      const [target] = await (await fetch(`http://${host}:${port}/json`)).json();
      return target.webSocketDebuggerUrl;
    } catch {
      await sleep(50);
    }
  }
  throw new Error(`process ${pid} opened no inspector`);
}

const socket = new WebSocket(await address());
await new Promise((resolve) => socket.addEventListener("open", resolve));
const waiting = new Map();
socket.addEventListener("message", ({ data }) => {
  const { id, result } = JSON.parse(data);
  waiting.get(id)?.(result);
});
let last = 0;
function call(method, params = {}) {
  last += 1;
  socket.send(JSON.stringify({ id: last, method, params }));
  return new Promise((resolve) => waiting.set(last, resolve));
}

await call("Profiler.enable");
await call("Profiler.setSamplingInterval", { interval: 500 });
await call("Profiler.start");
await sleep(Number(seconds) * 1000);
const { profile } = await call("Profiler.stop");
const close = "process.getBuiltinModule('node:inspector').close()";
void call("Runtime.evaluate", { expression: `setTimeout(() => ${close}, 50)` });
process.stdout.write(JSON.stringify(profile), () => process.exit(0));
