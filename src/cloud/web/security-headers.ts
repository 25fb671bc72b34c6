// Headers on every answer of our own pages. Previews are another site and get none of these.

/** Scripts and styles are files of ours: nothing inline, nothing from elsewhere. */
export function contentSecurityPolicy(formTargets: readonly string[] = []): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "connect-src 'self'",
    // a browser holds a form to this where it is redirected to, too
    `form-action ${["'self'", ...formTargets].join(" ")}`,
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "object-src 'none'",
  ].join("; ");
}

const constant: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  // not no-referrer: with that a browser sends our own forms with "Origin: null", which checkForm refuses
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
};

/** What a handler has set itself stays. */
export function secure(headers: Headers, overHttps: boolean): void {
  for (const [name, value] of Object.entries(constant)) if (!headers.has(name)) headers.set(name, value);
  if (!headers.has("content-security-policy")) headers.set("content-security-policy", contentSecurityPolicy());
  if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  if (overHttps) headers.set("strict-transport-security", "max-age=31536000");
}
