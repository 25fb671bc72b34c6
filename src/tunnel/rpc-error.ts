// AppErrors across a JSON-RPC connection: an error object's `data` is {code, message, hint, fields, causes}
// (PROTOCOL §8). Causes travel as text, for `--verbose`: what is a failure of the daemon's is asked about at the CLI.
import { ErrorCodes, ResponseError } from "vscode-jsonrpc/node";
import { z } from "zod";
import { AppError, errorCodes, formatCauseChain, toAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";

/** protocol: JSON-RPC's number for every AppError; `data.code` tells them apart. */
const appErrorNumber = -32_000;

const errorDataSchema = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
  fields: z.record(z.string(), z.unknown()).optional(),
  causes: z.array(z.string()).optional(),
});

/** chosen: a cause may quote a whole answer of a server. */
const maxCauseChars = 500;

export function encodeError(error: unknown): ResponseError<z.infer<typeof errorDataSchema>> {
  const { code, message, hint, fields, cause } = toAppError(error);
  const causes = formatCauseChain(cause).map((line) => line.slice(0, maxCauseChars));
  return new ResponseError(appErrorNumber, message, {
    code,
    message,
    ...(hint === undefined ? {} : { hint }),
    fields: onlyJson(fields),
    ...(causes.length === 0 ? {} : { causes }),
  });
}

/** What a call failed with. A code of a later version reads as `internal`, and keeps its name in `fields`. */
export function decodeError(error: unknown): AppError {
  if (!(error instanceof ResponseError)) return toAppError(error);
  const data = errorDataSchema.safeParse(error.data);
  if (data.success) {
    const { code, message, hint, fields, causes = [] } = data.data;
    const known = Object.hasOwn(errorCodes, code);
    return new AppError(known ? (code as ErrorCode) : "internal", message, {
      cause: chainOf(causes),
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

/** Errors that formatCauseChain() prints as the lines they were made from, outermost first. */
function chainOf(lines: readonly string[]): Error | undefined {
  return lines.reduceRight<Error | undefined>((cause, line) => {
    const colon = line.indexOf(": ");
    const error = new Error(line.slice(colon < 0 ? 0 : colon + 2), { cause });
    error.name = colon < 0 ? "Error" : line.slice(0, colon);
    return error;
  }, undefined);
}

function onlyJson(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  try {
    return JSON.parse(JSON.stringify(fields)) as Record<string, unknown>;
  } catch {
    return {}; // a cycle or a bigint: facts for a log are not worth losing the error for
  }
}
