// `--mount`, `--copy-volume` and `--copy-limit`: which of the pod's volumes come to the laptop, and where to.
import { resolve } from "node:path";
import { AppError } from "#base/error.ts";

export interface VolumeFlags {
  readonly mount?: string;
  readonly copyVolume?: readonly string[];
  readonly copyLimit?: string;
}

export interface VolumeWish {
  readonly path?: string;
  readonly copy: string[];
  readonly limitBytes: number;
}

/** chosen: more than a configuration has, less than a laptop would miss. */
const defaultLimit = "256Mi";

const yes = ["true", "t", "1"];
const no = ["false", "f", "0"];

/** Undefined where nothing is to be copied. */
export function readVolumeWish(flags: VolumeFlags, cwd: string): VolumeWish | undefined {
  const limitBytes = readLimit(flags.copyLimit ?? defaultLimit);
  // Copies are never written back, so `:ro` is what they are anyway.
  const mount = (flags.mount ?? "true").replace(/:ro$/, "");
  const copy = [...(flags.copyVolume ?? [])];
  if (mount === "") throw new AppError("usage", '--mount is "", expected true, false or a directory');
  if (no.includes(mount.toLowerCase())) {
    if (copy.length === 0) return undefined;
    throw new AppError("usage", `--mount=${mount} and --copy-volume exclude each other`);
  }
  return { copy, limitBytes, ...(yes.includes(mount.toLowerCase()) ? {} : { path: resolve(cwd, mount) }) };
}

const units: Readonly<Record<string, number>> = {
  "": 1,
  K: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

function readLimit(text: string): number {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)([KMGT]i?)?$/.exec(text) ?? [];
  const bytes = Math.floor(Number(digits) * (units[unit] ?? 0));
  if (digits !== "" && bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new AppError("usage", `--copy-limit is "${text}", expected an amount such as 500Mi or 2Gi`);
}
