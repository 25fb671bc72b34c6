// How large a regular expression will be when compiled, told before it is: `(x{100}){10}` is a few characters and a
// thousand instructions. An estimate from above for valid expressions; what is not valid the compiler refuses anyway.

/** Instructions, roughly; at least the number of characters that are matched one by one. */
export function estimateInstructions(pattern: string): number {
  const size = new Size();
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at] as string;
    const repeat = char === "{" ? /^\{(\d+)(?:,(\d*))?\}/.exec(pattern.slice(at, at + 16)) : null;
    if (repeat !== null) {
      size.repeat(Math.max(Number(repeat[1]), Number(repeat[2] ?? 0), 1));
      at += repeat[0].length - 1;
    } else if (char === "[") {
      at = endOfClass(pattern, at);
      size.add(2);
    } else {
      if (char === "\\") at++;
      size.read(char);
    }
  }
  return size.total;
}

class Size {
  /** Of the groups around the current one. */
  readonly #open: number[] = [];
  #group = 0;
  /** What a quantifier would repeat; part of the group already. */
  #atom = 0;

  get total(): number {
    return this.#open.reduce((sum, size) => sum + size, this.#group);
  }

  add(size: number): void {
    this.#atom = size;
    this.#group += size;
  }

  /** Optional copies have a fork each, hence one more. */
  repeat(times: number): void {
    const added = this.#atom * (times + 1);
    this.#group += added;
    this.#atom += added;
  }

  read(char: string): void {
    if (char === "(") {
      this.#open.push(this.#group);
      this.#group = 0;
    } else if (char === ")") {
      const inner = this.#group + 2;
      this.#group = this.#open.pop() ?? 0;
      this.add(inner);
    } else if ("*+?".includes(char)) {
      this.#group += 1;
      this.#atom += 1;
    } else {
      this.add(2);
    }
  }
}

function endOfClass(pattern: string, start: number): number {
  let at = start + 1;
  if (pattern[at] === "^") at++;
  if (pattern[at] === "]") at++; // first in a class it is itself
  for (; at < pattern.length && pattern[at] !== "]"; at++) {
    if (pattern[at] === "\\") at++;
    else if (pattern.startsWith("[:", at)) at = Math.max(at, pattern.indexOf(":]", at) + 1);
  }
  return at;
}
