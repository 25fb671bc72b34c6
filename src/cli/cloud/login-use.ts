// What a command has to use, or to change, the login of this laptop.
import type { CommandContext } from "#cli/context.ts";
import { runningConnections } from "#cli/connection/connections.ts";
import { openDaemon } from "#cli/connection/daemon-socket.ts";
import type { LoginUse } from "#login/current-login.ts";

/** chosen: the daemon only makes a note of it. */
const tellMs = 2000;

/** Daemons that run hear of another login at once. */
export async function tellDaemon(context: CommandContext): Promise<void> {
  try {
    const running = await runningConnections(context.machine);
    await Promise.all(
      running.map(async (machine) => {
        using daemon = await openDaemon({ ...context, machine });
        await daemon?.client.call("loginChanged", {}, tellMs);
      }),
    );
  } catch {
    // they find out by themselves, when they ask the server
  }
}

export async function loginUse({ machine, clock, interrupts }: CommandContext): Promise<LoginUse> {
  return { places: await machine.openCloudPlaces(), clock, signal: interrupts.signal };
}
