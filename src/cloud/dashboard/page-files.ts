// The files of the dashboard's page, which lie beside the program (scripts/build.ts).
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "#base/error.ts";

export interface PageFiles {
  read(file: string): Buffer;
}

export class BuiltPage implements PageFiles {
  readonly #folder: string;
  readonly #read = new Map<string, Buffer>();

  constructor(folder: string = join(import.meta.dirname, "page")) {
    this.#folder = folder;
  }

  read(file: string): Buffer {
    const known = this.#read.get(file);
    if (known !== undefined) return known;
    try {
      const body = readFileSync(join(this.#folder, file));
      this.#read.set(file, body);
      return body;
    } catch (cause) {
      throw new AppError("not_found", "this server was installed without the dashboard's page", {
        cause,
        hint: "build it with `npm run build`",
      });
    }
  }
}
