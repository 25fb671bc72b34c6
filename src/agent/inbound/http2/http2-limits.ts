// What bounds a connection of HTTP/2 in the agent, towards the caller and towards those who answer. What Node bounds by
// itself (PING and SETTINGS floods, endless CONTINUATION frames) is proved in test/flow/manager/http2-hostile.test.ts.
import { maxHeadBytes } from "#http/head.ts";

export const windows = {
  /** chosen: a pod's neighbours are near; what waits for the reader of a stream is at most this. */
  callerStreamBytes: 64 * 1024,
  /** chosen: 5 MB/s for one stream to a laptop that is 50 ms away. */
  endStreamBytes: 256 * 1024,
  /** chosen: all streams of one connection on their way; Node takes them off the connection at once. */
  callerConnectionBytes: 1024 * 1024,
  endConnectionBytes: 4 * 1024 * 1024,
} as const;

const headers = {
  /** chosen: as many lines as such a head can sensibly have. */
  maxHeaderListPairs: 1000,
  /** Whatever was taken in must go out again. */
  maxSendHeaderBlockLength: 4 * maxHeadBytes,
  /** Lines that came twice go on twice. */
  strictSingleValueFields: false,
  /** chosen, in megabytes: streams, header tables and what waits to be sent on one connection. */
  maxSessionMemory: 32,
} as const;

export const callerLimits = {
  ...headers,
  settings: {
    /** chosen: more than applications commonly allow, so that theirs is the one that counts. */
    maxConcurrentStreams: 1000,
    maxHeaderListSize: maxHeadBytes,
    initialWindowSize: windows.callerStreamBytes,
  },
  /** chosen: cancelling callers are common, a rapid reset (CVE-2023-44487) is many thousands a second. */
  streamResetBurst: 2000,
  streamResetRate: 200,
};

export const endLimits = {
  ...headers,
  settings: { enablePush: false, maxHeaderListSize: 2 * maxHeadBytes, initialWindowSize: windows.endStreamBytes },
};
