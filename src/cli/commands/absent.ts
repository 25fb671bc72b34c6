// Commands of the specification that come with the cloud server: one clear sentence instead of "unknown command".
import { AppError } from "#base/error.ts";

export function failAbsent(name: string): never {
  throw new AppError("unsupported", `${name} is not available in this version`);
}
