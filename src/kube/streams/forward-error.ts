// The kubelet's words for a failed dial in the pod, as an error of ours.
import { AppError } from "#base/error.ts";

export function forwardError(what: string, said: string): AppError {
  const short = said.replace(/\s+/g, " ").trim().slice(0, 500);
  if (/connection refused/i.test(said)) {
    return new AppError("refused", `${what} was refused: nothing listens on that port in the pod`, {
      cause: new Error(short),
    });
  }
  if (/not found|not running|no running|container .* exited|sandbox/i.test(said)) {
    return new AppError("unreachable", `${what} failed: the pod is gone or not running (${short})`, {
      cause: new Error(short),
    });
  }
  return new AppError("unreachable", `${what} failed: ${short}`, { cause: new Error(short) });
}
