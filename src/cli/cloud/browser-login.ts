// Logging in by the browser: it is sent to the server, and comes back with a code to a port of this machine's loopback
// (RFC 8252). Only who knows the state may bring one, and only this process has the code's verifier.
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { cloudClientId, cloudPaths } from "#wire/cloud-api.ts";
import type { TokenAnswer } from "#wire/cloud-api.ts";
import type { CloudClient } from "#login/cloud-client.ts";

/** chosen: how long a person may take. */
const limitMs = 5 * 60_000;

export async function logInByBrowser(
  { clock, interrupts, output }: CommandContext,
  client: CloudClient,
  places: CloudPlaces,
): Promise<TokenAnswer> {
  const [state, verifier] = [randomBytes(16).toString("base64url"), randomBytes(48).toString("base64url")];
  const { promise: answered, resolve, reject } = Promise.withResolvers<string>();
  answered.catch(() => undefined); // read below, or ended by the limit
  const server = createServer({ headersTimeout: 5000, requestTimeout: 5000 }, (request, response) => {
    const answer = readAnswer(request, state);
    say(response, answer);
    if (answer === undefined) return;
    if ("code" in answer) resolve(answer.code);
    else reject(answer.error);
  });
  try {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const redirectUri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/callback`;
    const query = new URLSearchParams({
      client_id: cloudClientId,
      response_type: "code",
      redirect_uri: redirectUri,
      state,
      code_challenge: createHash("sha256").update(verifier).digest("base64url"),
      code_challenge_method: "S256",
      device: places.deviceName,
    });
    const url = `${client.url}${cloudPaths.authorize}?${query}`;
    output.tell("Launching browser authentication flow...");
    const opened = await places.openBrowser(url);
    output.tell(opened ? `If no page opens, go to ${url}` : `No browser could be opened; go to ${url}`);
    using limit = deadline(clock, limitMs, "logging in", interrupts.signal);
    const code = await raceSignal(answered, limit.signal);
    const fields = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
    const answer = await client.token(fields);
    if ("error" in answer)
      throw new AppError("denied", `${client.url} did not accept the browser's code`, { hint: "try again" });
    return answer;
  } finally {
    server.close();
    server.closeIdleConnections();
    output.clearProgress();
  }
}

type Answer = { readonly code: string } | { readonly error: AppError };

/** Undefined for what is not the answer: another program knocks, or the browser asks for an icon. */
function readAnswer(request: IncomingMessage, state: string): Answer | undefined {
  const url = URL.parse(request.url ?? "", "http://127.0.0.1");
  if (request.method !== "GET" || url?.pathname !== "/callback") return undefined;
  if (url.searchParams.get("state") !== state) return undefined;
  const code = url.searchParams.get("code");
  if (code !== null && /^[\w-]{1,500}$/.test(code)) return { code };
  return { error: new AppError("denied", "Login aborted: it was refused in the browser") };
}

function say(response: ServerResponse, answer: Answer | undefined): void {
  const text =
    answer === undefined
      ? "There is nothing here."
      : "code" in answer
        ? "Login successful. You may close this page."
        : "Login aborted. You may close this page.";
  response.writeHead(answer === undefined ? 404 : 200, {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "referrer-policy": "no-referrer",
    connection: "close",
  });
  response.end(
    `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Telepresence</title>` +
      `<style>body{font:1.1rem/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh}</style><p>${text}</p></html>`,
  );
}
