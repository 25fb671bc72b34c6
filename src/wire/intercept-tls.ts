// How an intercept with a filter reads connections that speak TLS: by a certificate that the pod has mounted, which is
// named here and never carried.
import { z } from "zod";

/** A file of a volume: never outside of it. */
const volumeFileSchema = z
  .string()
  .max(253)
  .regex(/^(?!\.\.?(\/|$))[\w.-]+(\/(?!\.\.?(\/|$))[\w.-]+)*$/);

export const certificateChoiceSchema = z.object({
  /** Name of a volume of the pod, or of the Secret that it shows. */
  volume: z
    .string()
    .max(253)
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/),
  /** `tls.crt` when left out. */
  certificateFile: volumeFileSchema.optional(),
  /** `tls.key` when left out. */
  keyFile: volumeFileSchema.optional(),
});
export type CertificateChoice = z.infer<typeof certificateChoiceSchema>;

export const interceptTlsSchema = z.object({
  /** Where the pod has the certificate; left out, it is looked for in all that the pod mounts. */
  certificate: certificateChoiceSchema.optional(),
  /** The laptop's process gets plain HTTP, not TLS. */
  plaintext: z.boolean().optional(),
});
export type InterceptTls = z.infer<typeof interceptTlsSchema>;

/** `VOLUME[:CERTIFICATE,KEY]`, as flags and annotations have it; undefined when it is none. */
export function parseCertificateChoice(text: string): CertificateChoice | undefined {
  const [volume = "", files, ...rest] = text.split(":");
  const [certificateFile, keyFile, ...more] = files?.split(",") ?? [];
  if (rest.length + more.length > 0 || (files !== undefined && keyFile === undefined)) return undefined;
  return certificateChoiceSchema.safeParse({ volume, certificateFile, keyFile }).data;
}
