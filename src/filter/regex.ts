// Regular expressions in RE2's syntax, matched in linear time and on a budget. The library parses and compiles; the
// matching is ours: its lazy automaton was measured at up to 5 µs per character on expressions like `a(a|b){20}$`
// (85 ms for a path of 16 KiB), which one may not spend in a proxy, and it cannot be told to stop. Here all states are
// followed at once (Pike's method), which costs what is charged to the meter.
import { RE2JS, RE2JSSyntaxException } from "re2js";
import { invariant } from "#base/error.ts";
import { filterLimits } from "./limits.ts";
import { FilterProblem } from "./problem.ts";
import { estimateInstructions } from "./regex-size.ts";
import type { Meter } from "./value.ts";

// The library's instructions (those of RE2) and the conditions of `assertion`.
const op = { fork: 1, forkMatch: 2, capture: 3, assertion: 4, fail: 5, match: 6, nop: 7, any: 10, anyButNewline: 11 };
const lineStart = 1;
const lineEnd = 2;
const textStart = 4;
const textEnd = 8;
const wordBoundary = 16;
const noWordBoundary = 32;

interface Instruction {
  readonly op: number;
  readonly out: number;
  readonly arg: number;
  matchRune(rune: number): boolean;
}

interface Program {
  readonly start: number;
  readonly inst: readonly Instruction[];
}

/** In steps of `limits.ts`; a character beyond ASCII is looked up in tables. */
const cost = { start: 8, thread: 2, wideThread: 8 };

// What is known of an instruction and an ASCII character.
const unknown = 0;
const no = 1;
const yes = 2;

export class Regex {
  readonly pattern: string;
  readonly instructions: number;
  readonly #start: number;
  readonly #instructions: readonly Instruction[];
  /** The same, in arrays: this is the innermost loop of an evaluation. */
  readonly #op: Uint8Array;
  readonly #out: Int32Array;
  readonly #arg: Int32Array;
  /** Which ASCII characters a match can begin with; undefined when it can be empty. */
  readonly #first: Uint8Array | undefined;
  /** Only a match at the very beginning is possible. */
  readonly #anchored: boolean;
  readonly #asserts: boolean;
  /** Per instruction and ASCII character: whether it matches; filled as met. */
  readonly #ascii: Uint8Array;
  /** The #mark at which an instruction was last entered. */
  readonly #entered: Int32Array;
  readonly #stack: Int32Array;
  /** The threads that wait for a character: the first #count of #current. */
  #current: Int32Array;
  #next: Int32Array;
  #count = 0;
  /** Of the place being entered: its position plus one, and the assertions that hold there. */
  #mark = 0;
  #conditions = 0;

  constructor(pattern: string, program: Program) {
    const size = program.inst.length;
    this.pattern = pattern;
    this.instructions = size;
    this.#start = program.start;
    this.#instructions = program.inst;
    this.#op = Uint8Array.from(program.inst, (instruction) => instruction.op);
    this.#out = Int32Array.from(program.inst, (instruction) => instruction.out);
    this.#arg = Int32Array.from(program.inst, (instruction) => instruction.arg);
    this.#first = firstCharacters(program);
    this.#anchored = isAnchored(program);
    this.#asserts = program.inst.some((instruction) => instruction.op === op.assertion);
    this.#ascii = new Uint8Array(size * 128);
    this.#entered = new Int32Array(size);
    this.#stack = new Int32Array(2 * size + 1);
    this.#current = new Int32Array(size);
    this.#next = new Int32Array(size);
  }

  /** Whether some part of `text` matches; anchors are the expression's own business. */
  test(text: string, meter: Meter): boolean {
    meter.spend(cost.start + (this.instructions >> 3));
    this.#entered.fill(0);
    this.#count = 0;
    let rune = runeAt(text, 0);
    this.#moveTo(0, -1, rune);
    if (this.#enter(this.#start, meter)) return true;
    for (let at = 0; rune >= 0; rune = runeAt(text, at)) {
      if (this.#count === 0 && this.#anchored) return false;
      at += rune > 0xffff ? 2 : 1;
      this.#moveTo(at, rune, runeAt(text, at));
      if (this.#step(rune, meter)) return true;
      if (this.#anchored) continue;
      at = this.#skip(text, at, meter);
      if (this.#enter(this.#start, meter)) return true;
    }
    return false;
  }

  /** Without threads, moves to the next character that a match can begin with. */
  #skip(text: string, from: number, meter: Meter): number {
    const first = this.#first;
    if (first === undefined || this.#count > 0) return from;
    let at = from;
    while (at < text.length && first[text.charCodeAt(at)] === 0) at++;
    if (at === from) return from;
    meter.spend((at - from) >> 1);
    this.#moveTo(at, text.charCodeAt(at - 1), runeAt(text, at));
    return at;
  }

  #moveTo(at: number, before: number, after: number): void {
    this.#mark = at + 1;
    if (this.#asserts) this.#conditions = conditionsBetween(before, after);
  }

  /** Moves all threads over one character, to the place set before; true at a match. */
  #step(rune: number, meter: Meter): boolean {
    const current = this.#current;
    const count = this.#count;
    meter.spend((count + 1) * (rune < 128 ? cost.thread : cost.wideThread));
    this.#current = this.#next;
    this.#next = current;
    this.#count = 0;
    for (let index = 0; index < count; index++) {
      const instruction = current[index] as number;
      if (!this.#matches(instruction, rune)) continue;
      if (this.#enter(this.#out[instruction] as number, meter)) return true;
    }
    return false;
  }

  /** Follows forks and assertions from `from`; what waits for a character joins the threads. True at a match. */
  #enter(from: number, meter: Meter): boolean {
    const stack = this.#stack;
    const entered = this.#entered;
    const mark = this.#mark;
    let depth = 0;
    let visited = 0;
    stack[depth++] = from;
    while (depth > 0) {
      const index = stack[--depth] as number;
      if (entered[index] === mark) continue;
      entered[index] = mark;
      visited++;
      switch (this.#op[index] as number) {
        case op.match:
          return true;
        case op.fail:
          break;
        case op.fork:
        case op.forkMatch:
          stack[depth++] = this.#arg[index] as number;
          stack[depth++] = this.#out[index] as number;
          break;
        case op.assertion:
          if (((this.#arg[index] as number) & ~this.#conditions) === 0) stack[depth++] = this.#out[index] as number;
          break;
        case op.capture:
        case op.nop:
          stack[depth++] = this.#out[index] as number;
          break;
        default:
          this.#current[this.#count++] = index;
      }
    }
    meter.spend(visited * cost.thread);
    return false;
  }

  #matches(index: number, rune: number): boolean {
    const code = this.#op[index];
    if (code === op.any) return true;
    if (code === op.anyButNewline) return rune !== 10;
    const instruction = this.#instructions[index] as Instruction;
    if (rune >= 128) return instruction.matchRune(rune);
    const slot = index * 128 + rune;
    const known = this.#ascii[slot];
    if (known !== unknown) return known === yes;
    const matches = matchesRune(instruction, rune);
    this.#ascii[slot] = matches ? yes : no;
    return matches;
  }
}

/** Throws a FilterProblem whose offset is within `pattern`. */
export function compileRegex(pattern: string): Regex {
  const tooLarge = `the regular expression is too large; expected at most ${filterLimits.regexInstructions} instructions`;
  if (estimateInstructions(pattern) > 4 * filterLimits.regexInstructions) throw new FilterProblem(0, tooLarge);
  const program = programOf(pattern);
  if (program.inst.length > filterLimits.regexInstructions) throw new FilterProblem(0, tooLarge);
  return new Regex(pattern, program);
}

/** The library shows its program to nobody; `regex.test.ts` compares our matching with its own. */
function programOf(pattern: string): Program {
  const { prog } = parse(pattern).re2Input as { readonly prog: Program };
  const highest = prog.inst.reduce((most, instruction) => Math.max(most, instruction.op), 0);
  invariant(highest <= op.anyButNewline, "the regular expression has only instructions that we know");
  return prog;
}

function parse(pattern: string): RE2JS {
  try {
    return RE2JS.compile(pattern);
  } catch (error) {
    if (!(error instanceof RE2JSSyntaxException)) throw error;
    const part = error.input ?? "";
    const at = part === "" ? pattern.length : Math.max(0, pattern.indexOf(part));
    throw new FilterProblem(at, `${explain(part, error.error)}${part === "" ? "" : `: ${part.slice(0, 40)}`}`);
  }
}

function explain(part: string, said: string): string {
  if (/^\(\?<?[=!]/.test(part)) return "look-ahead and look-behind cannot be matched in linear time";
  if (/^\\[1-9k]/.test(part)) return "back-references cannot be matched in linear time";
  if (part.startsWith("(?>") || /^[*+?}]\+$/.test(part)) return "atomic groups and possessive repeats are not in RE2";
  const [, lacking] = /^missing (closing \S|argument to repetition operator)/.exec(said) ?? [];
  if (lacking !== undefined) return `the regular expression has no ${lacking}`;
  return `the regular expression has ${/^[aeiou]/.test(said) ? "an" : "a"} ${said}`;
}

function isAnchored({ start, inst }: Program): boolean {
  let index = start;
  for (let hops = 0; hops < inst.length; hops++) {
    const instruction = inst[index];
    if (instruction === undefined) return false;
    if (instruction.op === op.assertion) return (instruction.arg & textStart) !== 0;
    if (instruction.op !== op.capture && instruction.op !== op.nop) return false;
    index = instruction.out;
  }
  return false;
}

function matchesRune(instruction: Instruction, rune: number): boolean {
  if (instruction.op === op.any) return true;
  return instruction.op === op.anyButNewline ? rune !== 10 : instruction.matchRune(rune);
}

/** Assertions are taken to hold, so some characters are in it for nothing. */
function firstCharacters({ start, inst }: Program): Uint8Array | undefined {
  const first = new Uint8Array(128);
  const entered = new Set<number>();
  const open = [start];
  for (let index = open.pop(); index !== undefined; index = open.pop()) {
    if (entered.has(index)) continue;
    entered.add(index);
    const instruction = inst[index] as Instruction;
    if (instruction.op === op.match) return undefined;
    if (instruction.op === op.fork || instruction.op === op.forkMatch) open.push(instruction.arg);
    if (instruction.op <= op.nop) {
      if (instruction.op !== op.fail) open.push(instruction.out);
    } else {
      for (let rune = 0; rune < 128; rune++) if (matchesRune(instruction, rune)) first[rune] = 1;
    }
  }
  return first;
}

function runeAt(text: string, at: number): number {
  return at < text.length ? (text.codePointAt(at) as number) : -1;
}

/** `before` and `after` are code points, or -1 outside of the text. */
function conditionsBetween(before: number, after: number): number {
  const start = before < 0 ? textStart | lineStart : before === 10 ? lineStart : 0;
  const end = after < 0 ? textEnd | lineEnd : after === 10 ? lineEnd : 0;
  return start | end | (isWord(before) === isWord(after) ? noWordBoundary : wordBoundary);
}

function isWord(rune: number): boolean {
  return (rune >= 97 && rune <= 122) || (rune >= 65 && rune <= 90) || (rune >= 48 && rune <= 57) || rune === 95;
}
