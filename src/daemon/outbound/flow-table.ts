// Flows by their 4-tuple, found from a packet's own bytes without building a key. Chained hash table; entries carry
// their chain link, so that neither lookup nor insert allocates.
//
//   key: source address | destination address | source port | destination port   (12 or 36 bytes)
import type { PacketView } from "#packet/packet-view.ts";

export interface TableEntry<T> {
  readonly key: Uint8Array;
  /** Written by the table only. */
  nextInBucket: T | undefined;
}

/** chosen: power of two above the largest table, so that chains stay at about one entry. */
const bucketCount = 16_384;

export class FlowTable<T extends TableEntry<T>> {
  readonly #buckets: (T | undefined)[] = new Array<T | undefined>(bucketCount).fill(undefined);
  readonly #entries = new Set<T>();

  get size(): number {
    return this.#entries.size;
  }
  /** In order of insertion. */
  values(): IterableIterator<T> {
    return this.#entries.values();
  }
  /** The flow that the loaded packet belongs to. */
  find(view: PacketView): T | undefined {
    const { bytes, sourceOffset, transportOffset } = view;
    const addressEnd = sourceOffset + view.addressBytes * 2;
    const hash = mix(bytes, transportOffset, transportOffset + 4, mix(bytes, sourceOffset, addressEnd, seed));
    let entry = this.#buckets[hash & (bucketCount - 1)];
    while (entry !== undefined && !isKeyOf(entry.key, view)) entry = entry.nextInBucket;
    return entry;
  }
  findKey(key: Uint8Array): T | undefined {
    let entry = this.#buckets[bucketOf(key)];
    while (entry !== undefined && !sameBytes(entry.key, key)) entry = entry.nextInBucket;
    return entry;
  }
  /** The key must not be in the table. */
  insert(entry: T): void {
    const bucket = bucketOf(entry.key);
    entry.nextInBucket = this.#buckets[bucket];
    this.#buckets[bucket] = entry;
    this.#entries.add(entry);
  }
  /** False when it was not there. */
  remove(entry: T): boolean {
    if (!this.#entries.delete(entry)) return false;
    const bucket = bucketOf(entry.key);
    const first = this.#buckets[bucket];
    if (first === entry) {
      this.#buckets[bucket] = entry.nextInBucket;
    } else {
      let before = first;
      while (before !== undefined && before.nextInBucket !== entry) before = before.nextInBucket;
      if (before !== undefined) before.nextInBucket = entry.nextInBucket;
    }
    entry.nextInBucket = undefined;
    return true;
  }
}

/** A copy of the loaded packet's key. */
export function flowKeyOf(view: PacketView): Uint8Array {
  const addressBytes = view.addressBytes * 2;
  const key = new Uint8Array(addressBytes + 4);
  key.set(view.bytes.subarray(view.sourceOffset, view.sourceOffset + addressBytes));
  key.set(view.bytes.subarray(view.transportOffset, view.transportOffset + 4), addressBytes);
  return key;
}

/** FNV-1a (chosen); the kernel picks the ports, so nobody can aim at one bucket. */
const seed = 0x811c9dc5;
function mix(bytes: Uint8Array, start: number, end: number, initial: number): number {
  let hash = initial;
  for (let offset = start; offset < end; offset++) hash = Math.imul(hash ^ (bytes[offset] as number), 0x01000193);
  return hash ^ (hash >>> 15);
}

function bucketOf(key: Uint8Array): number {
  const ports = key.length - 4;
  return mix(key, ports, key.length, mix(key, 0, ports, seed)) & (bucketCount - 1);
}

function isKeyOf(key: Uint8Array, view: PacketView): boolean {
  const addressBytes = view.addressBytes * 2;
  if (key.length !== addressBytes + 4) return false;
  const { bytes, sourceOffset, transportOffset } = view;
  for (let index = 0; index < addressBytes; index++) {
    if (key[index] !== bytes[sourceOffset + index]) return false;
  }
  for (let index = 0; index < 4; index++) {
    if (key[addressBytes + index] !== bytes[transportOffset + index]) return false;
  }
  return true;
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}
