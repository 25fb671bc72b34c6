// AppErrors across a JSON-RPC connection: an error object's `data` is {code, message, hint, fields} (PROTOCOL §8).
import { ErrorCodes, ResponseError } from "vscode-jsonrpc/node";
import { z } from "zod";
import { AppError, errorCodes, toAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";

/** protocol: JSON-RPC's number for every AppError; `data.code` tells them apart. */
const appErrorNumber = -32_000;

const errorDataSchema = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
  fields: z.record(z.string(), z.unknown()).optional(),
});

export function encodeError(error: unknown): ResponseError<z.infer<typeof errorDataSchema>> {
  const { code, message, hint, fields } = toAppError(error);
  return new ResponseError(appErrorNumber, message, {
    code,
    message,
    ...(hint === undefined ? {} : { hint }),
    fields: onlyJson(fields),
  });
}

/** What a call failed with. A code of a later version reads as `internal`, and keeps its name in `fields`. */
export function decodeError(error: unknown): AppError {
  if (!(error instanceof ResponseError)) return toAppError(error);
  const data = errorDataSchema.safeParse(error.data);
  if (data.success) {
    const { code, message, hint, fields } = data.data;
    const known = Object.hasOwn(errorCodes, code);
    return new AppError(known ? (code as ErrorCode) : "internal", message, {
      ...(hint === undefined ? {} : { hint }),
      fields: known ? (fields ?? {}) : { ...fields, code },
    });
  }
  switch (error.code) {
    case ErrorCodes.MethodNotFound:
      return new AppError("unsupported", error.message);
    case ErrorCodes.PendingResponseRejected:
      return new AppError("link_lost", error.message);
    default:
      return new AppError("internal", error.message, { fields: { number: error.code } });
  }
}

function onlyJson(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  try {
    return JSON.parse(JSON.stringify(fields)) as Record<string, unknown>;
  } catch {
    return {}; // a cycle or a bigint: facts for a log are not worth losing the error for
  }
}
