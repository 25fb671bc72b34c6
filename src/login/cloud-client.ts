// Requests to the cloud server, each with a limit. What goes wrong on the way is one sentence that names the server; it
// never names a token. Redirects are not followed: they could carry a token elsewhere.
import type { z } from "zod";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, type ErrorCode } from "#base/error.ts";
import { cloudClientId, cloudFailure, cloudPaths, meAnswer, oauthError, tokenAnswer } from "#wire/cloud-api.ts";
import type { MeAnswer, OAuthError, TokenAnswer } from "#wire/cloud-api.ts";

/** chosen: one request; an answer of the server's. */
const [requestMs, maxAnswerBytes] = [15_000, 256 * 1024];

export interface CloudClientOptions {
  /** Origin of the server. */
  readonly url: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export class CloudClient {
  readonly url: string;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;

  constructor({ url, clock, signal }: CloudClientOptions) {
    this.url = url;
    this.#clock = clock;
    this.#signal = signal;
  }

  /** OAuth's own errors are results: each flow says what they mean. */
  async oauth<T>(
    path: string,
    fields: Readonly<Record<string, string>>,
    schema: z.ZodType<T>,
  ): Promise<T | OAuthError> {
    const body = new URLSearchParams({ client_id: cloudClientId, ...fields });
    const { status, json } = await this.#send(path, { method: "POST", body });
    const failure = status === 200 ? undefined : oauthError.safeParse(json);
    if (failure?.success === true && /^[a-z_]+$/.test(failure.data.error)) return failure.data;
    return this.#read(schema, status, json);
  }

  token(fields: Readonly<Record<string, string>>): Promise<TokenAnswer | OAuthError> {
    return this.oauth(cloudPaths.token, fields, tokenAnswer);
  }

  /** A call with a token: what the server refuses is its own sentence. `unauthorized` when the token does not count. */
  async call<T>(call: CloudCall, token: string, schema: z.ZodType<T>): Promise<T> {
    const { method, path, body } = call;
    const headers = {
      authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    };
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const { status, json } = await this.#send(path, init);
    if (status === 204) return schema.parse({});
    const failure = status >= 400 && status !== 401 ? cloudFailure.safeParse(json) : undefined;
    if (failure?.success === true) throw refusal(status, failure.data);
    return this.#read(schema, status < 300 ? 200 : status, json);
  }

  /** `unauthorized` when the token does not count. */
  async me(token: string): Promise<MeAnswer> {
    const { status, json } = await this.#send(cloudPaths.me, { headers: { authorization: `Bearer ${token}` } });
    return this.#read(meAnswer, status, json);
  }

  #read<T>(schema: z.ZodType<T>, status: number, json: unknown): T {
    const parsed = schema.safeParse(json);
    if (status === 200 && parsed.success) return parsed.data;
    const said = (json as { readonly error?: unknown } | undefined)?.error;
    const sentence = typeof said === "string" ? said.replace(/[^\x20-\x7e]/g, "").slice(0, 200) : undefined;
    if (status === 401) throw new AppError("unauthorized", `${this.url} does not accept this login or key`);
    if (status === 429 || status === 403) throw new AppError("denied", `${this.url} refused: ${sentence ?? status}`);
    throw new AppError(
      "protocol",
      `${this.url} answers ${sentence ?? `with status ${status}`}, which no cloud server of Telepresence does`,
      {
        hint: "check the address",
      },
    );
  }

  async #send(path: string, init: RequestInit): Promise<{ readonly status: number; readonly json: unknown }> {
    using limit = deadline(this.#clock, requestMs, `the request to ${this.url}`, this.#signal);
    try {
      const response = await fetch(`${this.url}${path}`, { ...init, redirect: "error", signal: limit.signal });
      const text = await readBounded(response);
      return { status: response.status, json: parseJson(text) };
    } catch (error) {
      limit.signal.throwIfAborted();
      throw unreachable(this.url, error);
    }
  }
}

/** A request to the server's own API. */
export interface CloudCall {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: object;
}

const refusals: Readonly<Record<number, ErrorCode>> = {
  400: "usage",
  403: "denied",
  404: "not_found",
  409: "conflict",
};

function refusal(status: number, { error, hint }: z.infer<typeof cloudFailure>): AppError {
  const code = refusals[status] ?? (status === 429 ? "busy" : status >= 500 ? "unreachable" : "denied");
  return new AppError(code, error, hint === undefined ? {} : { hint });
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let held = 0;
  for await (const chunk of response.body ?? []) {
    held += (chunk as Uint8Array).length;
    if (held > maxAnswerBytes) throw new Error(`the answer is longer than ${maxAnswerBytes} bytes`);
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // not a server of ours, which the schema says
  }
}

function unreachable(url: string, error: unknown): AppError {
  const cause = (error as { readonly cause?: unknown }).cause ?? error;
  const code = String((cause as { readonly code?: unknown }).code ?? "");
  const said = (cause as { readonly message?: unknown }).message ?? code;
  if (/CERT|SELF_SIGNED|VERIFY|ALTNAME|ISSUER/.test(code)) {
    return new AppError("unreachable", `the certificate of ${url} is not trusted here: ${said}`, {
      cause: error,
      hint: "name its authority's file in NODE_EXTRA_CA_CERTS, or check the address",
    });
  }
  const reasons: Readonly<Record<string, string>> = {
    ECONNREFUSED: "nothing listens there",
    ENOTFOUND: "there is no such host",
    EAI_AGAIN: "its name cannot be resolved now",
    ETIMEDOUT: "it does not answer",
  };
  return new AppError("unreachable", `${url} cannot be reached: ${reasons[code] ?? said}`, {
    cause: error,
    hint: "check the address and that the server runs",
  });
}
