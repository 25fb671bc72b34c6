// The helper's life: check who is at the other end of standard input, serve it until it goes away, undo, end.
import { systemClock } from "#base/clock.ts";
import { AppError, formatCauseChain, isAppError, toAppError } from "#base/error.ts";
import { createLogger, lineWriter } from "#base/log.ts";
import type { Logger } from "#base/log.ts";
import { peerCredentials } from "#kernel/peer-cred.ts";
import { UnixChannel } from "#kernel/unix-channel.ts";
import { maxHelperLineBytes } from "#wire/helper.ts";
import type { helperReadySchema } from "#wire/helper.ts";
import type { z } from "zod";
import { sudoUser } from "./config.ts";
import { Dispatcher } from "./dispatcher.ts";
import { HelperSession } from "./session.ts";

const socketFd = 0;

/** Resolves with the exit code when everything is undone. Log lines go to standard error. `servedUid`: as a service. */
export async function runHelper(servedUid?: number): Promise<number> {
  const log = createLogger("info", lineWriter(process.stderr));
  try {
    const uid = checkCaller(servedUid);
    await serve(uid, log);
    return 0;
  } catch (error) {
    const { message, hint } = toAppError(error);
    log.error("helper failed", { error: message, hint, causes: formatCauseChain(error).slice(1) });
    return 1;
  }
}

/** The user whose daemon this is. */
function checkCaller(servedUid: number | undefined): number {
  if (process.geteuid?.() !== 0) {
    throw new AppError("helper_failed", "the root helper runs as a user; expected root", {
      hint: "`telepresence connect` starts it",
    });
  }
  const uid = peerUser();
  if (servedUid !== undefined) {
    if (uid === servedUid) return uid;
    throw new AppError("denied", `user ${uid} is connected to the root helper of user ${servedUid}`);
  }
  const caller = sudoUser();
  if (caller !== undefined && uid !== caller && uid !== 0) {
    throw new AppError("denied", `the daemon belongs to user ${uid}, and sudo was called by user ${caller}`);
  }
  return uid;
}

function peerUser(): number {
  try {
    return peerCredentials(socketFd).uid;
  } catch (cause) {
    // An error of its own, because people try the command by hand.
    if (isAppError(cause, "unsupported")) throw cause;
    throw new AppError("helper_failed", "standard input is no connection to a user daemon", {
      cause,
      hint: "`telepresence connect` starts the root helper",
    });
  }
}

async function serve(uid: number, log: Logger): Promise<void> {
  const ended = Promise.withResolvers<string>();
  // The terminal's signals are for the command that started us: we outlive it.
  for (const name of ["SIGHUP", "SIGINT", "SIGQUIT"] as const) process.on(name, () => undefined);
  process.once("SIGTERM", () => ended.resolve("SIGTERM"));
  const session = new HelperSession(uid, systemClock, log);
  const dispatcher = new Dispatcher(session, (reason) => ended.resolve(reason), log);
  const channel = new UnixChannel(socketFd, maxHelperLineBytes, {
    onLine: (line) => dispatcher.accept(line, channel),
    onEnd: (error) => ended.resolve(error?.message ?? "the daemon closed the connection"),
  });
  channel.send(JSON.stringify({ ready: true } satisfies z.infer<typeof helperReadySchema>));
  log.info("helper started", { uid, pid: process.pid });
  const reason = await ended.promise;
  await session[Symbol.asyncDispose]();
  channel.close();
  log.info("helper ended", { reason });
}
