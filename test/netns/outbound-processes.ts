// The two processes of outbound's tests, in a network namespace of their own.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { LabHandlers } from "./outbound-lab.ts";
import type { ProgramHandlers } from "./outbound-program.ts";
import { callProcess, type Remote } from "./process-calls.ts";

export interface OutboundProcesses extends AsyncDisposable {
  readonly lab: Remote<LabHandlers>;
  readonly program: Remote<ProgramHandlers>;
}

export async function startOutboundProcesses(): Promise<OutboundProcesses> {
  const children: ChildProcess[] = [];
  const start = (command: string, args: readonly string[], script: string): ChildProcess => {
    const file = fileURLToPath(new URL(script, import.meta.url));
    const child = spawn(command, [...args, process.execPath, file], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    children.push(child);
    return child;
  };
  const labProcess = start("unshare", ["--net"], "outbound-lab.ts");
  const lab = await callProcess<LabHandlers>(labProcess);
  const namespace = `--net=/proc/${labProcess.pid}/ns/net`;
  const program = await callProcess<ProgramHandlers>(start("nsenter", [namespace], "outbound-program.ts"));
  return {
    lab,
    program,
    [Symbol.asyncDispose]: async () => {
      for (const child of children.toReversed()) {
        if (child.exitCode !== null) continue;
        child.disconnect();
        await once(child, "exit");
      }
    },
  };
}
