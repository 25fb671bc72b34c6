// Stands in for `telepresence daemon` and `telepresence helper` as real processes. Mode and XDG_RUNTIME_DIR come from
// the outside: `daemon`, `daemon-that-fails`, `helper`, `helper-that-fails`.
import { createServer } from "node:net";
import { appendFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { softwareVersion } from "#base/version.ts";
import { connection, runtimeFolder, ScriptedDaemon } from "./scripted-daemon.ts";

const runtime = process.env["XDG_RUNTIME_DIR"] ?? "/nonexistent";
const mode = process.argv[2];
const connectionName = process.argv[3];

if (mode === "helper") {
  process.stdin.resume(); // standard input is the connection to the daemon
  process.stdin.on("end", () => process.exit(0));
} else if (mode === "helper-that-fails") {
  process.stderr.write("/dev/net/tun is missing\n");
  process.exitCode = 3;
} else if (mode === "daemon-that-fails") {
  process.stderr.write(
    `${JSON.stringify({ level: "error", msg: "daemon failed", error: "no room for the socket" })}\n`,
  );
  process.exitCode = 1;
} else {
  appendFileSync(join(runtime, "starts"), `${process.pid}\n`);
  void runDaemon();
}

async function runDaemon(): Promise<void> {
  let helperRunning = false;
  const folder = runtimeFolder(runtime, connectionName);
  const helperSocket = join(folder, "helper.sock");
  const daemonSocket = join(folder, "daemon.sock");
  for (const path of [helperSocket, daemonSocket]) rmSync(path, { force: true });
  const door = createServer(() => {
    helperRunning = true;
    appendFileSync(join(runtime, "helper-starts"), "one\n");
  }).listen(helperSocket);
  let connected = false;
  await ScriptedDaemon.start(
    runtime,
    {
      hello: () => ({
        version: softwareVersion,
        pid: process.pid,
        executable: process.execPath,
        installId: "install-1",
        connected,
        helperRunning,
      }),
      connect: () => {
        const fresh = !connected;
        connected = true;
        return { fresh, installedManager: false, connection, warnings: [] };
      },
    },
    () => {
      door.close();
      process.exit(0);
    },
    connectionName,
  );
}
