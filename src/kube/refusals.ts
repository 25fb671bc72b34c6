// A missing right, or a kind or an object that is not there, where that is no failure: there is another way, or less to
// tell. Anything else is thrown on.
import { isAppError } from "#base/error.ts";
import type { AppError } from "#base/error.ts";

export async function orUndefined<T>(promise: Promise<T>): Promise<T | undefined> {
  return await promise.catch((error: unknown) => {
    asRefusal(error);
    return undefined;
  });
}

/** The refusal as a value. */
export async function settled<T>(promise: Promise<T>): Promise<T | AppError> {
  return await promise.catch(asRefusal);
}

function asRefusal(error: unknown): AppError {
  if (isAppError(error, "forbidden") || isAppError(error, "not_found")) return error;
  throw error;
}
