// A command that cannot do without a login: where there is somebody, or a key, it does what `login` does.
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { readLogin } from "#login/credentials.ts";
import { canAsk } from "./ingress-questions.ts";

export async function isLoggedIn({ machine }: CommandContext): Promise<boolean> {
  const login = await readLogin(await machine.openCloudPlaces()).catch(() => undefined); // `login` says why
  return login !== undefined && login.ended !== true;
}

export async function requireLogin(context: CommandContext): Promise<void> {
  if (await isLoggedIn(context)) return;
  const { environment } = context;
  const hasKey = (environment.all["TELEPRESENCE_API_KEY"] ?? "") !== "";
  if (!hasKey && !canAsk(context)) {
    throw new AppError("unauthorized", "nobody is logged in at a cloud server here, which a preview needs", {
      hint: "log in first: telepresence login",
    });
  }
  const { logIn } = await import("#cli/commands/login.ts");
  await logIn(context, {});
}
