// User daemon ↔ root helper (DESIGN §7): one JSON object a line over the socket that the helper was started with. The
// helper opens with a `ready` line, because what is sent before could be read by the command that started it and still
// holds the socket; then the daemon asks, the helper answers, one request at a time; the verbs are all there is. The
// answer to `device.open` carries the device's descriptor beside its first byte (SCM_RIGHTS).
// The helper runs as root and trusts nobody: what the schema lets through is checked again against the host.
import { z } from "zod";
import { AppError, errorCodes } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { method } from "./rpc.ts";

/** protocol: longest line either way, bytes with the newline. Fits a Unix socket's buffer, so a send never waits. */
export const maxHelperLineBytes = 128 * 1024;
/** protocol: version of this conversation; the helper is started from the daemon's own installation, so they match. */
export const helperProtocol = 1;

/** protocol: network devices of one user at once, each in a slot of its own. */
export const maxDeviceSlots = 8;

/** `tel1000` in slot 0, `tel1000-1` in the next. */
export function formatDeviceName(uid: number, slot: number): string {
  return slot === 0 ? `tel${uid}` : `tel${uid}-${slot}`;
}

/** Whose device that is; undefined when it is none of telepresence's. */
export function deviceOwner(name: string): number | undefined {
  const uid = /^tel(\d{1,10})(-[1-7])?$/.exec(name)?.[1];
  return uid === undefined ? undefined : Number(uid);
}

const addressText = z.string().min(2).max(45);
const prefixText = z.string().min(4).max(49);
const port = z.number().int().min(1).max(65_535);
const empty = z.object({});

export const dnsHookSchema = z.discriminatedUnion("mode", [
  /** Link settings of systemd-resolved on the device: `server` answers for `domains` and everything below them. */
  z.object({
    mode: z.literal("resolved"),
    server: addressText,
    port,
    /** Routing domains, without a dot in front, e.g. `cluster.local`. */
    domains: z.array(z.string().min(1).max(253)).min(1).max(256),
    /** Suffixes tried for names without a dot, e.g. `default.svc.cluster.local`. */
    search: z.array(z.string().min(1).max(253)).max(6).optional(),
  }),
  /** Whatever programs send to port 53 of `nameservers` goes to `port` on loopback instead, of both families. */
  z.object({
    mode: z.literal("nft"),
    port,
    nameservers: z.array(addressText).min(1).max(16),
    /** Source ports of the daemon's own upstream sockets, which must reach the nameservers themselves. */
    upstreamSourcePorts: z.array(port).min(1).max(256),
    /** Source ports of its sockets that are to reach them past other connections' redirects, too. */
    pastOthersSourcePorts: z.array(port).max(256).optional(),
  }),
]);
export type DnsHook = z.infer<typeof dnsHookSchema>;

export const helperApi = {
  hello: method(
    z.object({ protocol: z.number().int(), version: z.string().max(64) }),
    z.object({ version: z.string().max(64), pid: z.number().int() }),
  ),
  /**
   * Once in a session. Addresses with prefix length, e.g. `246.246.0.1/30`; the device is up when this answers. A slot
   * that another connection of the user has is refused with `taken`; then the next may be asked for.
   */
  "device.open": method(
    z.object({
      addresses: z.array(prefixText).min(1).max(4),
      mtu: z.number().int().min(1280).max(65_535),
      /** Default: 0. */
      slot: z
        .number()
        .int()
        .min(0)
        .max(maxDeviceSlots - 1)
        .optional(),
    }),
    z.object({ name: z.string().max(15), index: z.number().int().positive(), mtu: z.number().int() }),
  ),
  /** The whole set of prefixes that the device shall take; the helper adds and removes the difference. */
  "routes.set": method(
    z.object({
      routes: z.array(prefixText).max(2048),
      /** Addresses that may lie in no route: API server, never-proxy. */
      never: z.array(addressText).max(1024),
      /** Of the routes, those inside these may be parts of wider routes of the machine. */
      overlap: z.array(prefixText).max(1024).optional(),
    }),
    z.object({ added: z.number().int(), removed: z.number().int() }),
  ),
  /** Replaces the hook that stands, without a gap. */
  "dns.hook": method(dnsHookSchema, empty),
  "dns.unhook": method(empty, empty),
  /** Undo everything and end; answered when it is undone. */
  bye: method(empty, empty),
} as const;

export type HelperVerb = keyof typeof helperApi;
export type HelperParams<V extends HelperVerb> = z.infer<(typeof helperApi)[V]["params"]>;
export type HelperResult<V extends HelperVerb> = z.infer<(typeof helperApi)[V]["result"]>;

/** The helper's first line. */
export const helperReadySchema = z.object({ ready: z.literal(true) });

export const helperRequestSchema = z.object({
  id: z.number().int().nonnegative(),
  verb: z.string().max(32),
  params: z.unknown(),
});

export const helperErrorSchema = z.object({
  code: z.string().max(64),
  message: z.string().max(4096),
  hint: z.string().max(4096).optional(),
  /** Of a refused route: which, and what of this machine stands against it. Of a refused slot: whose device has it. */
  fields: z
    .union([
      z.object({ route: prefixText, against: z.array(z.string().max(64)).max(8) }),
      z.object({ taken: z.string().max(15) }),
    ])
    .optional(),
});

export const helperReplySchema = z.union([
  z.object({ id: z.number().int().nonnegative(), error: helperErrorSchema }),
  z.object({ id: z.number().int().nonnegative(), result: z.unknown() }),
]);

/** An error as it crosses the socket; the cause chain stays in the helper. */
export function encodeHelperError(error: AppError): z.infer<typeof helperErrorSchema> {
  const { code, message, hint } = error;
  const short = (text: string): string => text.slice(0, 4000);
  const known = helperErrorSchema.shape.fields.safeParse(error.fields);
  const fields = known.success && known.data !== undefined ? { fields: known.data } : {};
  return { code, message: short(message), ...(hint === undefined ? {} : { hint: short(hint) }), ...fields };
}

/** The error again; a code this end does not know becomes `helper_failed`. */
export function decodeHelperError(error: z.infer<typeof helperErrorSchema>): AppError {
  const code: ErrorCode = Object.hasOwn(errorCodes, error.code) ? (error.code as ErrorCode) : "helper_failed";
  const { hint, fields } = error;
  return new AppError(code, error.message, {
    ...(hint === undefined ? {} : { hint }),
    ...(fields === undefined ? {} : { fields }),
  });
}
