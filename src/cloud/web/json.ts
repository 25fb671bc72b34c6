// Bodies of programs: JSON by a schema, with one sentence about what does not fit.
import type { z } from "zod";
import { AppError } from "#base/error.ts";
import type { RequestContext } from "./route.ts";

export async function readJson<S extends z.ZodType>(context: RequestContext, schema: S): Promise<z.infer<S>> {
  let value: unknown;
  try {
    value = await context.req.json();
  } catch (cause) {
    throw new AppError("usage", "the request's body is no JSON", { cause });
  }
  const read = schema.safeParse(value);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new AppError("usage", `the request's "${issue?.path.join(".") ?? ""}" is wrong: ${issue?.message ?? ""}`);
}
