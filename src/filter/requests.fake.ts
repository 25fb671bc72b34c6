// Requests for tests: a plain one to vary, and one as large and unkind as a caller may make it.
import { filterLimits } from "./limits.ts";
import type { FilterRequest } from "./request-view.ts";

export interface RequestOptions {
  readonly method?: string;
  readonly target?: string;
  readonly authority?: string;
  /** Values as text; they travel as UTF-8. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Uint8Array | string;
}

export function request(options: RequestOptions = {}): FilterRequest {
  const { method = "GET", target = "/", authority = "shop.example:8080", headers = {}, body } = options;
  const fields = Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map((value) => ({ name, value: Buffer.from(value, "utf8").toString("latin1") })),
  );
  return { method, target, authority, headers: fields, body };
}

/** Just below every limit of size; most of it matches everything halfway. */
export function hostileRequest(letters: string): FilterRequest {
  const repeat = (length: number): string => letters.repeat(Math.ceil(length / letters.length)).slice(0, length);
  const parameters = Array.from({ length: 5000 }, (_, index) => `k${index}=%41`).join("&");
  return {
    method: "GET",
    target: `/${"ab".repeat(5000)}?${parameters}`,
    authority: "shop",
    headers: Array.from({ length: 1500 }, (_, index) => ({ name: `h${index}`, value: "ab".repeat(30) })),
    body: repeat(filterLimits.bodyBytes),
  };
}
