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
  blackHole: 81,
  unreachable: 82,
  refused: 83,
  denied: 84,
  udpRefused: 9,
} as const;
export const bulkBytes = 10 * 1024 * 1024;
/** A pattern in which a lost or doubled piece shows. */
export function makeBulk(): Buffer {
  return Buffer.alloc(bulkBytes, Buffer.from(Array.from({ length: 251 }, (_, index) => index)));
}
