// The one place where the API server's answers and the network's failures become AppErrors. A refusal names verb,
// resource and namespace, and the kubectl command that checks it.
import { AppError, isAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import type { KubeTarget } from "./target.ts";
import { kubectlCommand } from "./target.ts";

/** What was being done, for messages. */
export interface KubeAction {
  /** RBAC verb: get, list, watch, create, patch, delete. */
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource?: string | undefined;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

interface StatusBody {
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
}

/** Translates an HTTP answer that is not a success. */
export function statusError(target: KubeTarget, action: KubeAction, httpStatus: number, body: string): AppError {
  const status = parseStatus(body);
  const fields = {
    httpStatus,
    reason: status.reason,
    causes: status.details?.causes?.map((cause) => cause.reason),
    resource: formatResource(action),
    namespace: action.namespace,
    serverMessage: status.message,
  };
  const said = status.message ?? (body === "" ? `HTTP ${httpStatus}` : body.slice(0, 300).trim());
  const cause = new Error(`HTTP ${httpStatus}: ${said}`);
  if (isAdmissionRefusal(said)) return admissionError(action, said, { cause, fields });
  switch (httpStatus) {
    case 401:
      return new AppError(
        "unauthorized",
        `${target.server} does not accept the credentials of ${describeUser(target)}`,
        {
          cause,
          fields,
          hint: "they may have expired: log in to the cluster again",
        },
      );
    case 403:
      return forbiddenError(target, action, said, { cause, fields });
    case 404:
      return new AppError("not_found", `${describeObject(action)} was not found`, { cause, fields });
    case 409:
      return new AppError("conflict", `${describeObject(action)} was changed by somebody else or exists: ${said}`, {
        cause,
        fields,
        hint: "try again",
      });
    default:
      return new AppError(codeOf(httpStatus), `${describeAction(action)} failed: ${said}`, { cause, fields });
  }
}

function codeOf(httpStatus: number): ErrorCode {
  if (httpStatus === 429 || httpStatus === 503) return "busy";
  if (httpStatus === 408 || httpStatus === 504) return "timeout";
  return "command_failed";
}

interface Details {
  readonly cause: Error;
  readonly fields: Readonly<Record<string, unknown>>;
}

function forbiddenError(target: KubeTarget, action: KubeAction, said: string, details: Details): AppError {
  // RBAC says `User "x" cannot …`; everything else with 403 is an admission plugin or a quota with its own reason.
  if (!/\bcannot\b/.test(said) && /forbidden|denied|exceeded|violates|terminated/i.test(said)) {
    return admissionError(action, said, details);
  }
  const user = /User "([^"]*)"/.exec(said)?.[1];
  const kind = /\bcannot impersonate resource "([^"]*)"/.exec(said)?.[1];
  if (kind !== undefined) return impersonationError(target, kind, { ...details, user });
  return forbidden(target, action, { ...details, user });
}

/** Policies answer with 422, webhooks with a code of their own choice, and one that is away makes it 500. */
function isAdmissionRefusal(said: string): boolean {
  return /^admission webhook "|\bfailed calling webhook "|\bValidatingAdmissionPolicy '[^']*' .*\bdenied\b/.test(said);
}

function admissionError(action: KubeAction, said: string, details: Details): AppError {
  // `deployments.apps "hello" is forbidden: ` repeats what the sentence begins with
  const reason = said.replace(/^Internal error occurred: /, "").replace(/^\S+ "[^"]*" is forbidden: /, "");
  return new AppError("forbidden", `${describeAction(action)} was refused by the cluster: ${reason.slice(0, 600)}`, {
    ...details,
    ...(/terminated/.test(said) ? {} : { hint: "ask the cluster's administrator" }),
    fields: { ...details.fields, admission: true },
  });
}

/** With this user no request can succeed, so it is no missing permission that could be got around. */
function impersonationError(
  target: KubeTarget,
  resource: string,
  details: Details & { readonly user: string | undefined },
): AppError {
  const plain: KubeTarget = { ...target, impersonate: { user: undefined, uid: undefined, groups: [], extra: {} } };
  const action: KubeAction = { verb: "impersonate", group: "", resource };
  return forbidden(plain, action, { ...details, fields: { ...details.fields, impersonation: true } });
}

/** The error for a permission that is missing, also when a SelfSubjectAccessReview said so. */
export function forbidden(
  target: KubeTarget,
  action: KubeAction,
  details: Partial<Details> & { readonly user?: string | undefined } = {},
): AppError {
  const what = `${action.verb} ${formatResource(action)} ${describePlace(action)}`;
  return new AppError("forbidden", `${describeUser(target, details.user)} may not ${what}`, {
    cause: details.cause,
    hint: `check with \`${canICommand(target, action)}\` and ask the cluster's administrator for that verb`,
    fields: { verb: action.verb, resource: formatResource(action), namespace: action.namespace, ...details.fields },
  });
}

/** The error where the action's verb or `create` would do and neither is granted; `refusal` is that of `create`. */
export function forbiddenBoth(target: KubeTarget, action: KubeAction, refusal: AppError): AppError {
  const user = /User "([^"]*)"/.exec(String(refusal.fields["serverMessage"]))?.[1];
  const what = `${formatResource(action)} ${describePlace(action)}`;
  const check = canICommand(target, { ...action, verb: "create" });
  return new AppError("forbidden", `${describeUser(target, user)} may neither ${action.verb} nor create ${what}`, {
    cause: refusal,
    fields: refusal.fields,
    hint: `check with \`${check}\` and ask the cluster's administrator for both verbs`,
  });
}

function describePlace(action: KubeAction): string {
  return action.namespace === undefined ? "in the whole cluster" : `in namespace ${action.namespace}`;
}

/** `kubectl auth can-i …` for exactly this action. */
export function canICommand(target: KubeTarget, action: KubeAction): string {
  const resource = action.group === "" ? action.resource : `${action.resource}.${action.group}`;
  return [
    kubectlCommand(target),
    "auth can-i",
    action.verb,
    resource,
    ...(action.subresource === undefined ? [] : [`--subresource=${action.subresource}`]),
    ...(action.namespace === undefined ? [] : ["-n", action.namespace]),
  ].join(" ");
}

function formatResource(action: KubeAction): string {
  const plain = action.group === "" ? action.resource : `${action.resource}.${action.group}`;
  return action.subresource === undefined ? plain : `${plain}/${action.subresource}`;
}

function describeObject(action: KubeAction): string {
  const where = action.namespace === undefined ? "" : ` in namespace ${action.namespace}`;
  const singular = action.resource.replace(/s$/, "");
  return action.name === undefined ? `${action.resource}${where}` : `${singular} ${action.name}${where}`;
}

function describeAction(action: KubeAction): string {
  const object = action.name === undefined ? formatResource(action) : `${formatResource(action)} ${action.name}`;
  return `${action.verb} ${object}${action.namespace === undefined ? "" : ` in namespace ${action.namespace}`}`;
}

/** `known` is what the server calls them. */
export function describeUser(target: KubeTarget, known?: string): string {
  const name = known ?? target.impersonate.user ?? target.user.name;
  return name === "" ? "this kubeconfig's user" : `user ${JSON.stringify(name)}`;
}

const tlsCodes = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "ERR_TLS_CERT_ALTNAME_INVALID",
]);

const unreachableTexts: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "the network is unreachable",
  ETIMEDOUT: "the connection timed out",
  ENOTFOUND: "the name does not resolve",
  EAI_AGAIN: "the name does not resolve (no answer from the resolver)",
  EPIPE: "the connection was closed",
};

/** Translates a failure below HTTP. What is an AppError already (a deadline, a cancel) stays itself. */
export function networkError(target: KubeTarget, error: unknown): AppError {
  if (isAppError(error)) return error;
  const code = errorCode(error);
  const context = target.contextName === "" ? "" : ` (context ${target.contextName})`;
  const message = error instanceof Error ? error.message : String(error);
  if (code !== undefined && (tlsCodes.has(code) || code.startsWith("ERR_TLS") || code.startsWith("ERR_SSL"))) {
    return new AppError("cluster_unreachable", `TLS with ${target.server}${context} failed: ${message}`, {
      cause: error,
      fields: { tls: code },
      hint: "check certificate-authority and server of the kubeconfig",
    });
  }
  const why = networkReason(error);
  return new AppError("cluster_unreachable", `cluster ${target.server}${context} cannot be reached: ${why}`, {
    cause: error,
    fields: { code },
    hint: "check that the cluster runs, the network, and the context",
  });
}

/** Why, in plain words. */
export function networkReason(error: unknown): string {
  const code = errorCode(error);
  const known = code === undefined ? undefined : unreachableTexts[code];
  return known ?? (error instanceof Error ? error.message : String(error));
}

/** The code of an error, also of the first inside an AggregateError (a name with several addresses). */
function errorCode(error: unknown): string | undefined {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return errorCode(error.errors[0]) ?? (error as NodeJS.ErrnoException).code;
  }
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

function parseStatus(body: string): StatusBody {
  try {
    const parsed: unknown = JSON.parse(body);
    return typeof parsed === "object" && parsed !== null ? (parsed as StatusBody) : {};
  } catch {
    return {}; // a proxy's page or plain text; the caller shows it as it is
  }
}

/** True when the server said 410 Gone: a watch must list again. */
export function isGone(error: unknown): boolean {
  return isAppError(error) && error.fields["httpStatus"] === 410;
}

/** True for a missing permission, false for a refusal by admission or quota, or of impersonation. */
export function isMissingPermission(error: unknown): boolean {
  if (!isAppError(error, "forbidden")) return false;
  return error.fields["admission"] !== true && error.fields["impersonation"] !== true;
}
