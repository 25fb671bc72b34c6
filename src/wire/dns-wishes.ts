// What a user says about names (`dns.*` of config.yml and of the kubeconfig's extension): whose they are, what stands for
// what, whom to ask and for how long.
import { z } from "zod";

/** protocol: as text, RFC 1035 §2.3.4. */
const dnsName = z.string().min(1).max(254);
const dnsNames = z.array(dnsName).max(1000).readonly();

export const dnsWishesSchema = z.object({
  /** With or without a leading dot. */
  includeSuffixes: dnsNames.optional(),
  /** In place of the built-in ones. */
  excludeSuffixes: dnsNames.optional(),
  excludes: dnsNames.optional(),
  /** A name, and the other name or the address that it stands for. */
  mappings: z
    .array(z.object({ name: dnsName, aliasFor: dnsName }))
    .max(1000)
    .readonly()
    .optional(),
  /** Of one look-up in the cluster. */
  lookupTimeoutMs: z.number().min(1).max(60_000).optional(),
  /** Who is asked for names that are not the cluster's, in place of the laptop's nameservers. */
  localAddresses: z.array(z.string().max(64)).max(3).readonly().optional(),
});
export type DnsWishes = z.infer<typeof dnsWishesSchema>;
