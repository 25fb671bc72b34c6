// The canary of an HTTP port (PROTOCOL §8.7): a request that the laptop sends where callers send theirs, and that the
// agent answers itself. Who else gets to see it learns nothing: the secret is in neither, only proofs made with it.
// Invariant: what is not exactly a canary is nobody's; headers that a proxy adds or rewrites do not matter.

export const canaryPath = "/.well-known/telepresence-canary";
const headerName = "telepresence-canary";
/** chosen: with the headers of several proxies. */
const maxHeadBytes = 8192;

const requestStart = Buffer.from(`GET ${canaryPath} HTTP/1.`);

/** What the laptop proves with the secret. */
export const askedText = (nonce: string): string => `canary ${nonce}`;
/** What the agent proves with the secret. */
export const answeredText = (nonce: string, podUid: string): string => `answer ${nonce} ${podUid}`;

export interface CanaryRequest {
  /** 32 hex digits. */
  readonly nonce: string;
  /** HMAC-SHA-256 of `askedText` in hex. */
  readonly proof: string;
}

export interface CanaryAnswer {
  readonly podUid: string;
  /** HMAC-SHA-256 of `answeredText` in hex. */
  readonly proof: string;
}

export function encodeCanaryRequest({ nonce, proof }: CanaryRequest, host: string): Buffer {
  return encodeHead(`GET ${canaryPath} HTTP/1.1`, [`Host: ${host}`, `${headerName}: ${nonce} ${proof}`]);
}

export function encodeCanaryAnswer({ podUid, proof }: CanaryAnswer): Buffer {
  const headers = ["Content-Length: 0", "Cache-Control: no-store", `${headerName}: ${podUid} ${proof}`];
  return encodeHead("HTTP/1.1 200 OK", headers);
}

function encodeHead(first: string, headers: readonly string[]): Buffer {
  return Buffer.from([first, ...headers, "Connection: close", "", ""].join("\r\n"));
}

/** Undefined of anything else, and as long as the head is not there whole. */
export function decodeCanaryRequest(bytes: Buffer): CanaryRequest | undefined {
  if (!bytes.subarray(0, requestStart.length).equals(requestStart)) return undefined;
  const [nonce, proof] = readHeader(bytes) ?? [];
  if (nonce === undefined || proof === undefined || !/^[0-9a-f]{32}$/.test(nonce) || !isProof(proof)) return undefined;
  return { nonce, proof };
}

/** An answer whose head is there whole; `canary` when an agent gave it. */
export interface AnswerHead {
  readonly status: number;
  readonly canary?: CanaryAnswer;
}

/** `more` while that cannot be told yet; undefined of what is not HTTP/1.1. */
export function decodeCanaryAnswer(bytes: Buffer): AnswerHead | "more" | undefined {
  if (bytes.length < "HTTP/1.1 200".length) return "more";
  const status = /^HTTP\/1\.[01] ([0-9]{3})/.exec(bytes.toString("latin1", 0, 16))?.[1];
  if (status === undefined) return undefined;
  if (!bytes.includes("\r\n\r\n")) return bytes.length < maxHeadBytes ? "more" : undefined;
  const [podUid, proof] = readHeader(bytes) ?? [];
  const isCanary = podUid !== undefined && proof !== undefined && isProof(proof);
  return { status: Number(status), ...(isCanary ? { canary: { podUid, proof } } : {}) };
}

/** The header's words. */
function readHeader(bytes: Buffer): readonly string[] | undefined {
  const text = bytes.toString("latin1", 0, maxHeadBytes);
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const value = /\r\ntelepresence-canary:[ \t]*([^\r\n]{1,200})/i.exec(text.slice(0, end))?.[1];
  return value?.trim().split(" ");
}

const isProof = (text: string): boolean => /^[0-9a-f]{64}$/.test(text);
