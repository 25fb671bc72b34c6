// What a command knows of the cluster it means: kubectl's connection flags, and where and in which environment the
// command ran, because the daemon that loads the files and starts credential plugins lives elsewhere.
import { z } from "zod";

const text = z.string().max(8192).optional();

export const kubeFlagsSchema = z.object({
  flags: z.object({
    kubeconfig: text,
    context: text,
    cluster: text,
    user: text,
    server: text,
    token: text,
    as: text,
    asGroup: z.array(z.string()).max(256).optional(),
    namespace: text,
    certificateAuthority: text,
    clientCertificate: text,
    clientKey: text,
    insecureSkipTlsVerify: z.boolean().optional(),
    tlsServerName: text,
    /** As kubectl takes it: `30s`, `0` for none. */
    requestTimeout: text,
  }),
  /** Working directory of the command; relative paths start here. */
  cwd: z.string().max(4096),
  /** The command's environment: KUBECONFIG, HOME, proxies, and what credential plugins need. Never logged. */
  env: z.record(z.string(), z.string()),
});
