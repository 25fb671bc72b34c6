// Laptop ↔ cloud server over HTTPS: logging in (OAuth 2.0: code with PKCE, device code, refresh, revocation), who one
// is, clusters and previews (JSON both ways, with a bearer token). Errors of /oauth/* are OAuth's own `{error, error_description}`, all others `{error}` with a sentence.
import { z } from "zod";
import { interceptStates, workloadSchema } from "./manager-api.ts";

export const cloudPaths = {
  authorize: "/oauth/authorize",
  device: "/oauth/device",
  token: "/oauth/token",
  revoke: "/oauth/revoke",
  /** Where a person types the code of a device. */
  deviceCode: "/device",
  me: "/api/me",
  /** The page that a team shares. */
  dashboard: "/dashboard",
  clusters: "/api/clusters",
  previews: "/api/previews",
  /** Where a manager comes with its cluster's token (`cloud-tunnel-api.ts`). */
  tunnel: "/tunnel",
} as const;

/** The only program that logs in this way; it is public and has no secret. */
export const cloudClientId = "telepresence-cli";

/** RFC 8628 §3.4. */
export const deviceGrantType = "urn:ietf:params:oauth:grant-type:device_code";

/** What is shown on a terminal steers nothing there. */
const shown = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .transform((text) => text.replace(/\p{Cc}/gu, ""));

export const tokenAnswer = z.object({
  access_token: z.string().min(1).max(500),
  refresh_token: z.string().min(1).max(500),
  token_type: z.literal("Bearer"),
  /** Seconds. */
  expires_in: z.number().int().positive(),
});
export type TokenAnswer = z.infer<typeof tokenAnswer>;

export const deviceAnswer = z.object({
  device_code: z.string().min(1).max(500),
  user_code: z.string().regex(/^[\w-]{1,50}$/),
  verification_uri: z.url().regex(/^[\x21-\x7e]{1,500}$/),
  verification_uri_complete: z.url().max(500),
  expires_in: z.number().int().positive(),
  /** Seconds between two questions. */
  interval: z.number().int().positive().max(60),
});
export type DeviceAnswer = z.infer<typeof deviceAnswer>;

export const oauthError = z.object({
  error: z.string().max(100),
  error_description: shown(500).optional(),
});
export type OAuthError = z.infer<typeof oauthError>;

export const cloudTeam = z.object({ id: z.string().max(100), name: shown(200) });
export type CloudTeam = z.infer<typeof cloudTeam>;

export const meAnswer = z.object({
  name: shown(200),
  email: shown(320).optional(),
  admin: z.boolean(),
  teams: z.array(cloudTeam).max(1000),
});
export type MeAnswer = z.infer<typeof meAnswer>;

/** What `{error}` of a refused call says; `hint` is the next step. */
export const cloudFailure = z.object({ error: shown(1000), hint: shown(500).optional() });

const id = z.string().regex(/^[\w.:-]{1,100}$/);
/** `<session id>:<name>`, as the manager names it. */
export const cloudInterceptId = z
  .string()
  .min(1)
  .max(300)
  .regex(/^[\x21-\x7e]+$/);

export const registerClusterRequest = z.object({
  /** UID of the namespace kube-system. */
  id,
  /** For people: the context, or the API server. */
  name: shown(200).pipe(z.string().min(1)),
  /** Name or id; the caller's only one when left out. */
  team: z.string().min(1).max(200).optional(),
});

export const registerClusterAnswer = z.object({
  id,
  name: shown(200),
  team: cloudTeam,
  /** For the manager alone, dead when the login that asked for it is. */
  token: z.string().min(1).max(500),
});
export type RegisterClusterAnswer = z.infer<typeof registerClusterAnswer>;

const hostName = z
  .string()
  .max(253)
  .regex(/^(?!-)[A-Za-z0-9_.-]+$|^[0-9A-Fa-f:]+$/);

/** How requests come into the cluster: dialled by the manager, spoken to by the cloud server. */
export const previewIngress = z.object({
  /** `service.namespace`, another name that resolves in the cluster, or an address. */
  host: hostName,
  port: z.number().int().min(1).max(65_535),
  tls: z.boolean(),
  /** In `Host` and SNI; `host` when left out. */
  l5host: hostName.optional(),
});
export type PreviewIngress = z.infer<typeof previewIngress>;

export const previewHeader = z.object({
  name: z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/),
  value: z
    .string()
    .max(2000)
    .regex(/^[\t\x20-\x7e]*$/),
});

export const previewAccess = z.enum(["team", "public"]);
export type PreviewAccess = z.infer<typeof previewAccess>;

export const createPreviewRequest = z.object({
  /** As it was registered. */
  clusterId: id,
  team: z.string().min(1).max(200).optional(),
  interceptId: cloudInterceptId,
  /** Its name. */
  intercept: z.string().min(1).max(253),
  workload: workloadSchema,
  ingress: previewIngress,
  /** The ingress's certificate is not verified. */
  insecure: z.boolean().optional(),
  /** PEM: whoever else may have signed the ingress's certificate. A server that does not know this refuses such an ingress. */
  ingressCa: z.string().max(32_000).optional(),
  /** Added to each request. */
  headers: z.array(previewHeader).max(50).optional(),
  banner: z.boolean(),
  access: previewAccess.optional(),
});
export type CreatePreviewRequest = z.infer<typeof createPreviewRequest>;

/** `sleeping`: the manager is away, or the intercept waits for its laptop. */
export const previewStates = ["live", "sleeping"] as const;

export const previewVisitor = z.object({
  /** Somebody of the team by name, `share link`, or `public`. */
  who: shown(200),
  requests: z.number().int(),
  lastMs: z.number(),
});

export const previewView = z.object({
  id,
  url: z.url().max(500),
  host: z.string().max(253),
  clusterId: id,
  cluster: shown(200),
  team: cloudTeam,
  owner: z.object({ id, name: shown(200) }),
  interceptId: cloudInterceptId,
  intercept: shown(253),
  workload: workloadSchema,
  ingress: previewIngress,
  insecure: z.boolean(),
  headers: z.array(previewHeader).max(50),
  banner: z.boolean(),
  access: previewAccess,
  state: z.enum(previewStates),
  createdMs: z.number(),
  /** Last first, bounded. */
  visitors: z.array(previewVisitor).max(100),
});
export type PreviewView = z.infer<typeof previewView>;
export const previewList = z.object({ previews: z.array(previewView) });

export const previewAccessRequest = z.object({ access: previewAccess });
/** Chosen: a minute to 30 days. */
export const shareRequest = z.object({
  expiresInSeconds: z
    .number()
    .int()
    .min(60)
    .max(30 * 24 * 3600),
});

export const shareView = z.object({
  id,
  /** Shown once, when it is made: it has the secret. */
  url: z.url().max(500).optional(),
  by: shown(200),
  createdMs: z.number(),
  expiresMs: z.number(),
});
export type ShareView = z.infer<typeof shareView>;
export const shareList = z.object({ shares: z.array(shareView) });

/** An intercept as its manager tells of it. */
export const reportedIntercept = z.object({
  id: cloudInterceptId,
  name: shown(253),
  workload: workloadSchema,
  /** `user@host`. */
  client: shown(300),
  state: z.enum(interceptStates),
  message: shown(1000),
  filter: shown(4096).optional(),
  createdAtMs: z.number(),
  pods: z.number().int(),
  previewIds: z.array(id).max(100),
  /** SHA-256 of the token with which its laptop has joined, lower-case hex. */
  joinedBy: z.string().regex(/^[0-9a-f]{64}$/),
});
export type ReportedIntercept = z.infer<typeof reportedIntercept>;

const clusterIntercept = reportedIntercept.omit({ joinedBy: true }).extend({
  /** Whose login the laptop had; nobody who is not there any more. */
  owner: z.object({ id, name: shown(200) }).optional(),
  /** The caller's. */
  own: z.boolean(),
});

export const clusterView = z.object({
  id,
  name: shown(200),
  team: cloudTeam,
  /** Whether a manager of it has a tunnel here. */
  live: z.boolean(),
  managerVersion: shown(64).optional(),
  /** Of laptops that are logged in here. */
  intercepts: z.array(clusterIntercept),
  /** Intercepts that were left out because there are too many. */
  more: z.number().int(),
});
export type ClusterView = z.infer<typeof clusterView>;
export const clusterList = z.object({ clusters: z.array(clusterView) });
