// What a command has to use, or to change, the login of this laptop.
import type { CommandContext } from "#cli/context.ts";
import type { LoginUse } from "#login/current-login.ts";

export async function loginUse({ machine, clock, interrupts }: CommandContext): Promise<LoginUse> {
  return { places: await machine.openCloudPlaces(), clock, signal: interrupts.signal };
}
