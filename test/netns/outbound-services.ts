// The services of the "cluster" in outbound.test.ts, by port.
export const services = {
  echo: 8080,
  /** Reads to the end, then answers `bulkBytes`. */
  answerAfterEnd: 8081,
  /** Sends `bulkBytes` and ends its half at once, then counts what comes. */
  sendFirst: 8082,
  /** Sends without end. */
  flood: 8083,
  /** Resets after the first byte. */
  reset: 8084,
  /** Answers what it gets, by thousands: no socket stands behind one of these. */
  crowd: 8085,
  /** Reads, and neither sends nor ends; no socket either. */
  silent: 8086,
  /** Answers the first bytes and resets: the laptop hears of both together, as no socket is between. */
  answerThenReset: 8087,
  blackHole: 81,
  unreachable: 82,
  refused: 83,
  denied: 84,
  udpRefused: 9,
} as const;
/** Addresses of the "cluster" → who is asked for an echo in their place; all others are denied. */
export const echoStandIns: Readonly<Record<string, string>> = {
  "10.96.0.10": "10.9.9.9",
  "10.96.0.11": "10.9.8.1",
  "10.96.0.12": "10.9.7.1",
  "fd00:96::a": "::1",
  "fd00:96::b": "fd00:98::1",
  "fd00:96::c": "fd00:97::1",
};
export const bulkBytes = 10 * 1024 * 1024;
/** A pattern in which a lost or doubled piece shows. */
export function makeBulk(): Buffer {
  return Buffer.alloc(bulkBytes, Buffer.from(Array.from({ length: 251 }, (_, index) => index)));
}
