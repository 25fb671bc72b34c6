// Laptop ↔ cloud server over HTTPS: logging in (OAuth 2.0: code with PKCE, device code, refresh, revocation) and who
// one is. Errors of /oauth/* are OAuth's own `{error, error_description}`, all others `{error}` with a sentence.
import { z } from "zod";

export const cloudPaths = {
  authorize: "/oauth/authorize",
  device: "/oauth/device",
  token: "/oauth/token",
  revoke: "/oauth/revoke",
  /** Where a person types the code of a device. */
  deviceCode: "/device",
  me: "/api/me",
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
  error_description: z.string().max(500).optional(),
});
export type OAuthError = z.infer<typeof oauthError>;

export const cloudTeam = z.object({ id: z.string().max(100), name: shown(200) });

export const meAnswer = z.object({
  name: shown(200),
  email: shown(320).optional(),
  admin: z.boolean(),
  teams: z.array(cloudTeam).max(1000),
});
export type MeAnswer = z.infer<typeof meAnswer>;
