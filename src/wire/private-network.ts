// User daemon ↔ the process that makes a private network (PROTOCOL §8.10): lines of JSON on a Unix socket, one question and one
// answer at a time. The maker asks; descriptors travel beside its lines.
import { z } from "zod";

const address = z.string().max(64);

export const privateNetworkCalls = {
  /** First: for which `enter` this is, and what is to be made. */
  begin: {
    params: z.object({ id: z.number().int() }),
    result: z.object({
      /** Of the device, with prefix lengths; those of a family that the kernel does not have are left out. */
      prefixes: z.array(address).max(8),
      mtu: z.number().int(),
      /** Where the device's network has a nameserver. */
      nameserver: address,
    }),
  },
  /** With the device's descriptor. */
  device: { params: z.object({ mtu: z.number().int() }), result: z.object({}) },
  /** With a socket that is bound to a port of this address of the device's. */
  listener: { params: z.object({ address }), result: z.object({}) },
  /** All is there: answered when packets flow. */
  ready: { params: z.object({}), result: z.object({}) },
} as const;
export type PrivateNetworkVerb = keyof typeof privateNetworkCalls;

export const privateNetworkRequestSchema = z.object({
  verb: z.enum(["begin", "device", "listener", "ready"]),
  params: z.unknown(),
});

export const privateNetworkReplySchema = z.union([
  z.object({ result: z.unknown() }),
  z.object({ error: z.object({ code: z.string().max(64), message: z.string().max(2000) }) }),
]);

/** protocol */
export const maxPrivateNetworkLineBytes = 8192;
