// OAuth 2.0 for `telepresence login`: authorization code with PKCE to a port of the laptop's own loopback (RFC 8252),
// device code (RFC 8628), refresh and revocation (RFC 7009). A person always says yes on a page: a program that merely
// opens a browser gets nothing.
import { html } from "hono/html";
import { AppError } from "#base/error.ts";
import { hidden, problemNotice } from "#cloud/identity/log-in.ts";
import { readUserCode } from "#cloud/identity/tokens.ts";
import { fieldOf, formToken } from "#cloud/web/browser.ts";
import { page } from "#cloud/web/page.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf, requireBrowser } from "#cloud/web/route.ts";
import { contentSecurityPolicy } from "#cloud/web/security-headers.ts";
import { cloudClientId, cloudPaths } from "#wire/cloud-api.ts";
import { readDeviceName } from "./device-name.ts";
import { answerDevice, findDevice, issueCode } from "./grants.ts";
import { tokenRoutes } from "./token-routes.ts";

/** chosen: codes that one person types; 20^8 of them are not guessed so. */
const codeRate = { burst: 10, perSecond: 1 / 30 };

export function oauthRoutes(parts: Parts): readonly Route[] {
  const codes = new RateLimit(codeRate, parts.clock);
  return [
    { method: "GET", path: cloudPaths.authorize, access: "person", handle: (context) => askForLaptop(context, parts) },
    { method: "POST", path: cloudPaths.authorize, access: "person", handle: (context) => answerLaptop(context, parts) },
    {
      method: "GET",
      path: cloudPaths.deviceCode,
      access: "person",
      handle: (context) => askForDevice(context, parts, codes),
    },
    {
      method: "POST",
      path: cloudPaths.deviceCode,
      access: "person",
      handle: (context) => answerForDevice(context, parts, codes),
    },
    ...tokenRoutes(parts),
  ];
}

interface Wanted {
  readonly redirectUri: string;
  readonly state: string;
  readonly challenge: string;
  readonly device: string;
}

/** What is wrong is said here and never sent on: until the address is known to be a laptop's, it may be anybody's. */
async function readWanted(read: (name: string) => Promise<string>): Promise<Wanted> {
  const redirectUri = await read("redirect_uri");
  const wrong = (what: string): AppError => new AppError("usage", `${what}; start again with: telepresence login`);
  if ((await read("client_id")) !== cloudClientId) throw wrong("the program that asks is not known");
  if (!/^http:\/\/(127\.0\.0\.1|\[::1\]):\d{1,5}\/callback$/.test(redirectUri) || !URL.canParse(redirectUri)) {
    throw wrong("the answer would not go to this machine");
  }
  if ((await read("response_type")) !== "code") throw wrong("the answer that is asked for is not a code");
  const [state, challenge] = [await read("state"), await read("code_challenge")];
  if ((await read("code_challenge_method")) !== "S256" || !/^[\w-]{43}$/.test(challenge))
    throw wrong("there is no proof key");
  if (state === "" || state.length > 200) throw wrong("there is no state");
  return { redirectUri, state, challenge, device: readDeviceName(await read("device")) };
}

async function askForLaptop(context: RequestContext, { config, key }: Parts): Promise<Response> {
  const person = callerOf(context);
  const wanted = await readWanted(async (name) => context.req.query(name) ?? "");
  const fields: Readonly<Record<string, string>> = {
    csrf: formToken(context, config, key),
    client_id: cloudClientId,
    response_type: "code",
    code_challenge_method: "S256",
    redirect_uri: wanted.redirectUri,
    state: wanted.state,
    code_challenge: wanted.challenge,
    device: wanted.device,
  };
  context.header("content-security-policy", contentSecurityPolicy([new URL(wanted.redirectUri).origin]));
  return page(context, {
    title: "Log in on your laptop?",
    body: html`<p>
        <code>telepresence login</code> on <strong>${wanted.device}</strong> asks to act as
        <strong>${person.name}</strong>: to create and share previews, and to see what your teams share.
      </p>
      <form method="post" action="${cloudPaths.authorize}">
        ${Object.entries(fields).map(([name, value]) => hidden(name, value))}
        <div class="row">
          <button name="answer" value="yes">Log in</button> <button class="quiet" name="answer" value="no">No</button>
        </div>
      </form>`,
  });
}

async function answerLaptop(context: RequestContext, { database, clock }: Parts): Promise<Response> {
  const person = callerOf(context);
  requireBrowser(context, "log in a laptop");
  const wanted = await readWanted((name) => fieldOf(context, name));
  const target = new URL(wanted.redirectUri);
  target.searchParams.set("state", wanted.state);
  if ((await fieldOf(context, "answer")) === "yes") {
    const request = { ...wanted, personId: person.id };
    target.searchParams.set("code", await issueCode(database, request, clock.wallMs()));
  } else {
    target.searchParams.set("error", "access_denied");
  }
  return context.redirect(target.href, 303);
}

async function askForDevice(context: RequestContext, parts: Parts, codes: RateLimit): Promise<Response> {
  const { config, database, clock, key } = parts;
  const person = callerOf(context);
  const typed = context.req.query("code") ?? "";
  const csrf = formToken(context, config, key);
  const code = readUserCode(typed);
  if (typed !== "") codes.take(person.id);
  const device = code === undefined ? undefined : await findDevice(database, code, clock.wallMs());
  if (code === undefined || device === undefined) {
    const problem = typed === "" ? undefined : "This code is not known, or has expired.";
    return page(context, {
      title: "Log in another device",
      status: problem === undefined ? 200 : 404,
      body: html`${problemNotice(problem)}
        <form method="get" action="${cloudPaths.deviceCode}">
          <label for="code">The code that <code>telepresence login</code> shows</label>
          <input
            class="code"
            id="code"
            name="code"
            autocomplete="off"
            autocapitalize="characters"
            placeholder="XXXX-XXXX"
            required
            autofocus
          />
          <div class="row"><button>Continue</button></div>
        </form>`,
    });
  }
  return page(context, {
    title: "Log in another device?",
    body: html`<p>
        <strong>${device}</strong> shows the code <code>${code}</code> and asks to act as
        <strong>${person.name}</strong>.
      </p>
      <p class="notice">
        Say yes only if you have just typed <code>telepresence login</code> there yourself. Who sent you this code, or
        this link, would be logged in as you.
      </p>
      <form method="post" action="${cloudPaths.deviceCode}">
        ${hidden("csrf", csrf)}${hidden("code", code)}
        <div class="row">
          <button name="answer" value="yes">Log in</button> <button class="quiet" name="answer" value="no">No</button>
        </div>
      </form>`,
  });
}

async function answerForDevice(context: RequestContext, parts: Parts, codes: RateLimit): Promise<Response> {
  const { database, clock } = parts;
  const person = callerOf(context);
  requireBrowser(context, "log in a device");
  codes.take(person.id);
  const userCode = readUserCode(await fieldOf(context, "code"));
  const allowed = (await fieldOf(context, "answer")) === "yes";
  const answered =
    userCode !== undefined &&
    (await answerDevice(database, { userCode, personId: person.id, allowed }, clock.wallMs()));
  if (!answered) throw new AppError("not_found", "this code is not known, or has expired");
  const text = allowed ? "The device is logged in. You may close this page." : "Nothing was logged in.";
  return page(context, { title: allowed ? "Done" : "Refused", body: text });
}
