// The functions of filters besides matches() and the macros: those of CEL on texts, lists and maps that can be paid
// for in advance. Types were checked before; what slips through (an element of an empty list) is a Failure.
import { Failure, wrongType } from "./value.ts";
import type { Meter, Value } from "./value.ts";

type Function = (meter: Meter, ...values: readonly Value[]) => Value;

const badNumber = new Failure("unusable", "a text is not a whole number");

/** Called as `value.name(…)`. */
export const methods: ReadonlyMap<string, Function> = new Map<string, Function>([
  ["contains", (meter, text, part) => onTexts(text, part, (a, b) => contains(a, b, meter))],
  ["startsWith", (meter, text, part) => onTexts(text, part, (a, b) => (payFor(b, meter), a.startsWith(b)))],
  ["endsWith", (meter, text, part) => onTexts(text, part, (a, b) => (payFor(b, meter), a.endsWith(b)))],
  ["lowerAscii", (meter, text) => onText(text, meter, (a) => a.replace(/[A-Z]+/g, (run) => run.toLowerCase()))],
  ["upperAscii", (meter, text) => onText(text, meter, (a) => a.replace(/[a-z]+/g, (run) => run.toUpperCase()))],
  ["size", sizeOf],
]);

/** Called as `name(…)`. */
export const functions: ReadonlyMap<string, Function> = new Map<string, Function>([
  ["size", sizeOf],
  ["int", (_meter, value) => toInteger(value)],
  ["string", (_meter, value) => toText(value)],
]);

function payFor(text: string, meter: Meter): void {
  meter.spend(text.length >> 4);
}

function onText(value: Value | undefined, meter: Meter, apply: (text: string) => Value): Value {
  if (typeof value !== "string") return wrongType;
  meter.spend(value.length >> 1);
  return apply(value);
}

function onTexts(left: Value | undefined, right: Value | undefined, apply: (a: string, b: string) => Value): Value {
  return typeof left === "string" && typeof right === "string" ? apply(left, right) : wrongType;
}

function sizeOf(meter: Meter, value?: Value): Value {
  if (Array.isArray(value)) return value.length;
  if (value instanceof Map) return value.size;
  return onText(value, meter, (text) => {
    let points = 0;
    for (let at = 0; at < text.length; at++) {
      if ((text.charCodeAt(at) & 0xfc00) === 0xd800 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00) at++;
      points++;
    }
    return points;
  });
}

function toInteger(value: Value | undefined): Value {
  if (typeof value === "number") return value;
  if (typeof value !== "string") return wrongType;
  return /^[+-]?\d{1,15}$/.test(value) ? Number(value) : badNumber;
}

function toText(value: Value | undefined): Value {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : wrongType;
}

const shortPart = 32;

/**
 * The engine's own search is fast, but its worst case is the product of both lengths; it is used where that product
 * can be charged, and Knuth, Morris and Pratt's search for longer parts.
 */
function contains(text: string, part: string, meter: Meter): boolean {
  if (part.length <= shortPart) {
    meter.spend((text.length * part.length) >> 3);
    return text.includes(part);
  }
  meter.spend(2 * (text.length + part.length));
  const borders = new Int32Array(part.length);
  for (let at = 1, border = 0; at < part.length; at++) {
    while (border > 0 && part.charCodeAt(at) !== part.charCodeAt(border)) border = borders[border - 1] as number;
    if (part.charCodeAt(at) === part.charCodeAt(border)) border++;
    borders[at] = border;
  }
  for (let at = 0, matched = 0; at < text.length; at++) {
    while (matched > 0 && text.charCodeAt(at) !== part.charCodeAt(matched)) matched = borders[matched - 1] as number;
    if (text.charCodeAt(at) === part.charCodeAt(matched)) matched++;
    if (matched === part.length) return true;
  }
  return false;
}
