// The Internet checksum (RFC 1071) in full, and its incremental update (RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m')).
// A "sum" is an unfolded one's complement sum of 16-bit words; a "delta" is a folded ~m + m' to be applied many times.

/** Adds the words of bytes[start, end) to `initial`; an odd last byte counts as its high half. */
export function sumWords(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let sum = initial;
  const lastPair = end - 1;
  let offset = start;
  for (; offset < lastPair; offset += 2) {
    sum += ((bytes[offset] as number) << 8) | (bytes[offset + 1] as number);
  }
  if (offset < end) sum += (bytes[offset] as number) << 8;
  return sum;
}

/** Folds a sum to 16 bits. A whole packet's sum stays below 2^32, so shifts are exact. */
export function foldSum(sum: number): number {
  let folded = (sum & 0xffff) + (sum >>> 16);
  folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** The checksum field for a sum. */
export function finishSum(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/** The part of a TCP, UDP or ICMPv6 checksum that covers both addresses (adjacent at `addressOffset`), protocol and length. */
export function sumPseudoHeader(
  bytes: Uint8Array,
  addressOffset: number,
  addressBytes: number,
  transport: { readonly protocol: number; readonly byteLength: number },
): number {
  const sum = sumWords(bytes, addressOffset, addressOffset + addressBytes * 2);
  return sum + transport.protocol + (transport.byteLength >>> 16) + (transport.byteLength & 0xffff);
}

/** ~old + new over two equally long runs of whole words, folded. */
export function checksumDelta(before: Uint8Array, after: Uint8Array): number {
  let sum = 0;
  for (let offset = 0; offset < before.length; offset += 2) {
    sum += ~(((before[offset] as number) << 8) | (before[offset + 1] as number)) & 0xffff;
  }
  return foldSum(sumWords(after, 0, after.length, sum));
}

/** Applies a delta to the checksum field at `offset`. */
export function applyChecksumDelta(bytes: Uint8Array, offset: number, delta: number): void {
  const old = ((bytes[offset] as number) << 8) | (bytes[offset + 1] as number);
  const updated = finishSum((~old & 0xffff) + delta);
  bytes[offset] = updated >>> 8;
  bytes[offset + 1] = updated & 0xff;
}
