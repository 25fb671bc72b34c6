// Header fields of one hop alone (RFC 9110 §7.6.1): who passes a message on leaves them out, and makes the body's framing
// anew. Whatever `Connection` names is one as well.
export const hopFields: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
