// What `cloud install` asks of the daemon: how the cloud server is to stand in a cluster.
import { z } from "zod";

const name = z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/);
const text = z.string().min(1).max(500);

/** Keys of the Secret that the server reads; further ones are nobody's. */
export const cloudSecretKeys = ["database", "oidc-client-secret", "metrics-token", "extra-ca"] as const;
/** chosen: of one value; a hundred authorities. */
export const maxSecretLetters = 200_000;
export type CloudSecretKey = (typeof cloudSecretKeys)[number];

export const cloudInstallation = z.object({
  namespace: name,
  url: z.url().max(500),
  previewDomain: text.optional(),
  /** Absent: no Ingress is made. */
  ingress: z
    .object({
      class: name.optional(),
      /** Secrets of type kubernetes.io/tls, for the server's name and for `*.` and the preview domain. */
      tlsSecret: name.optional(),
      previewTlsSecret: name.optional(),
    })
    .optional(),
  trustedProxies: z.string().max(1000),
  /** Where SQLite's file lies; not asked for with a database in the Secret. */
  storage: z.object({ size: text, class: name.optional() }).or(z.literal("none")),
  secret: z
    .object({ name, keys: z.array(z.enum(cloudSecretKeys)) })
    .or(z.object({ values: z.partialRecord(z.enum(cloudSecretKeys), z.string().max(maxSecretLetters)) })),
  oidc: z
    .object({ issuer: z.url().max(500), clientId: text, groupsClaim: text.optional(), adminGroup: text.optional() })
    .optional(),
});
export type CloudInstallation = z.infer<typeof cloudInstallation>;
