// The one error class a user may see. A message names the subject, its value and what was expected; the hint
// names the next step. Codes live in one table so that exit codes and kinds cannot drift apart.
// Foreign errors are translated once, at the edge that met them (host/, kube/, kernel/).

/** Who can mend it: the user, the environment (network, cluster, system), the other end of a wire, or us. */
export type ErrorKind = "user" | "environment" | "peer" | "bug";

interface CodeEntry {
  readonly kind: ErrorKind;
  /** Process exit code of the CLI, documented in the README. */
  readonly exit: number;
}

const user = (exit = 1): CodeEntry => ({ kind: "user", exit });
const environment = (exit = 1): CodeEntry => ({ kind: "environment", exit });
const peer: CodeEntry = { kind: "peer", exit: 1 };

/** Every code that crosses a process or reaches a user. Add here first; names are snake_case and stable. */
export const errorCodes = {
  usage: user(2),
  invalid_config: user(),
  not_connected: user(),
  already_connected_elsewhere: user(),
  context_not_found: user(),
  kubeconfig_invalid: user(),
  cluster_unreachable: environment(),
  unauthorized: environment(),
  forbidden: environment(),
  not_found: user(),
  workload_not_found: user(),
  ambiguous: user(),
  not_interceptable: user(),
  intercept_exists: user(),
  intercept_not_found: user(),
  port_in_use: user(),
  injection_failed: environment(),
  rollout_failed: environment(),
  manager_unavailable: environment(),
  manager_failed: environment(),
  namespace_missing: user(),
  conflict: environment(),
  helper_failed: environment(),
  daemon_unreachable: environment(),
  tun_unavailable: environment(),
  route_conflict: environment(),
  dns_hook_failed: environment(),
  datapath_blocked: environment(),
  version_mismatch: peer,
  protocol: peer,
  refused: environment(),
  unreachable: environment(),
  timeout: environment(),
  denied: environment(),
  link_lost: environment(),
  busy: environment(),
  peer_reset: environment(),
  cancelled: user(130),
  unsupported: environment(),
  environment_incomplete: environment(),
  command_failed: environment(),
  internal: { kind: "bug", exit: 70 } as CodeEntry,
} as const satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof errorCodes;

export interface AppErrorOptions {
  readonly cause?: unknown;
  /** The next step, as an imperative clause or a command. */
  readonly hint?: string;
  /** Facts for logs and JSON output; never secrets. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

export class AppError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AppError";
    this.code = code;
    this.hint = options.hint;
    this.fields = options.fields ?? {};
  }
}

/** A misbehaving peer: ends that stream or session, never the process. `wireCode` is PROTOCOL §4's reset code. */
export class ProtocolError extends AppError {
  readonly wireCode: number;

  constructor(message: string, wireCode: number, options: AppErrorOptions = {}) {
    super("protocol", message, options);
    this.name = "ProtocolError";
    this.wireCode = wireCode;
  }
}

/** True for an AppError, optionally of one code. */
export function isAppError(error: unknown, code?: ErrorCode): error is AppError {
  return error instanceof AppError && (code === undefined || error.code === code);
}

/** Anything thrown, as an AppError; what is not ours becomes `internal` with its cause kept. */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new AppError("internal", message, { cause: error });
}

/** One line for people: message, then the hint. */
export function formatError(error: AppError): string {
  return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
}

/** The messages of the whole cause chain, outermost first, for `--verbose`. Bounded at 16 links. */
export function formatCauseChain(error: unknown): readonly string[] {
  const lines: string[] = [];
  let current: unknown = error;
  while (current !== undefined && current !== null && lines.length < 16) {
    lines.push(current instanceof Error ? `${current.name}: ${current.message}` : String(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return lines;
}

/** Throws an internal error when a condition that this code guarantees does not hold. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AppError("internal", `broken invariant: ${message}`);
}
