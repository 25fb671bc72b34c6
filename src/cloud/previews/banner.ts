// The line at the end of a page that says that it is a preview, and whose. Without scripts, and without styles where the
// page has a policy that may forbid them; it stands behind everything, where every browser takes it into the body.
import type { Headers } from "./request-headers.ts";
import type { Preview } from "./previews.ts";

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
/** All that is not ASCII, too: whatever the page's encoding, these are the same bytes. */
export function escapeHtml(text: string): string {
  return text
    .replace(/[&<>"']/g, (sign) => escapes[sign] ?? sign)
    .replace(/[^\x20-\x7e]/gu, (sign) => `&#${sign.codePointAt(0)};`);
}

const style =
  "position:fixed;left:0;right:0;bottom:0;z-index:2147483647;margin:0;padding:4px 12px;font:13px/1.5 system-ui,sans-serif;" +
  "color:#fff;background:#1f2937;text-align:center";

export function bannerOf(preview: Preview, dashboard: string, answer: Headers): Buffer {
  const styled = answer["content-security-policy"] === undefined ? ` style="${style}"` : "";
  const link = styled === "" ? "" : ' style="color:#93c5fd"';
  return Buffer.from(
    `\n<p align="center"${styled} role="note">Preview of ${escapeHtml(preview.intercept)} by ` +
      `${escapeHtml(preview.personName)}, ${escapeHtml(preview.teamName)} &middot; ` +
      `<a href="${escapeHtml(dashboard)}"${link} rel="noreferrer">Telepresence</a></p>\n`,
  );
}
