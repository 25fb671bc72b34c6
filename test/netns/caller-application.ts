// The application of caller-address.test.ts, in the pod's namespace but a process of its own. It answers each line:
// `who` with the address and port that it sees, `reset` with a reset, all else as it came; and a half-close with `end`.
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { answerCalls } from "./process-calls.ts";

let resets = 0;

function serve(socket: Socket): void {
  socket.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "ECONNRESET") resets += 1;
  });
  const lines = createInterface({ input: socket, crlfDelay: 0 });
  lines.on("error", () => undefined);
  lines.on("line", (line) => {
    if (line === "who") socket.write(`${socket.remoteAddress?.replace("::ffff:", "")} ${socket.remotePort}\n`);
    else if (line === "reset") socket.resetAndDestroy();
    else socket.write(`${line}\n`);
  });
  lines.on("close", () => socket.end("end\n"));
}

export const applicationCalls = {
  listen: async (host: string, port: number): Promise<void> => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, serve);
    await new Promise<void>((resolve) => server.listen(port, host, resolve));
  },
  resets: (): number => resets,
};

answerCalls(applicationCalls);
