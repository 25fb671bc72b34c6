// What is hidden until somebody asks for it: values whose name says that they are secret, in header lines, in queries,
// and in bodies that are JSON or forms. Names are matched without regard for case.

/** Names that are hidden always; `*` stands for anything. */
const usualPatterns: readonly string[] = [
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
  "*password*",
  "*passwd*",
  "*secret*",
  "*token*",
  "*api-key*",
  "*api_key*",
  "*apikey*",
  "*session*",
];

/** chosen: longer names are hidden unseen: to look for a pattern takes the square of their length. */
const maxNameChars = 200;

export const hiddenText = "•••";

export interface Redacted {
  readonly text: string;
  readonly hidden: boolean;
}

export class Redaction {
  readonly #patterns = new Set(usualPatterns);
  #name = /^$/;

  constructor(more: readonly string[] = []) {
    this.hide(more);
  }

  /** `more` are patterns of the user's: names, in which `*` stands for anything. From now on. */
  hide(more: readonly string[]): void {
    for (const pattern of more) this.#patterns.add(pattern);
    const alternatives = Array.from(this.#patterns, (pattern) =>
      pattern.split("*").map(escapeForRegExp).join('[^=&"]*'),
    );
    this.#name = new RegExp(`^(?:${alternatives.join("|")})$`, "i");
  }

  hides(name: string): boolean {
    return name.length > maxNameChars || this.#name.test(name);
  }

  /** A path with its query, or a whole address with its fragment. */
  target(target: string): string {
    const start = target.search(/[?#]/) + 1;
    if (start === 0) return target;
    const parts = target.slice(start).split("#");
    return target.slice(0, start) + parts.map((part) => this.#form(part).text).join("#");
  }

  /** Of a header line; that of one that holds an address is shown without what is secret in the address. */
  value(name: string, value: string): Redacted {
    if (this.hides(name)) return { text: hiddenText, hidden: true };
    return { text: withAddress.has(name) ? this.target(value) : value, hidden: false };
  }

  body(text: string, contentType: string): Redacted {
    const isJson = /^\s*[[{]/.test(text);
    if (!isJson && /x-www-form-urlencoded/i.test(contentType)) return this.#form(text);
    // Members of JSON are found in any text: in lines of it, in events, in parts of forms.
    const { text: masked } = this.#json(text);
    const shown = /^multipart\/form-data/i.test(contentType) ? this.#parts(masked) : masked;
    return { text: shown, hidden: shown !== text };
  }

  /** Not parsed, because a body may be cut, and shall be shown as it was written. */
  #json(text: string): Redacted {
    let masked = text;
    for (const [member, quote] of [
      [jsonMember, '"'],
      [textMember, '\\"'],
    ] as const) {
      masked = masked.replaceAll(member, (all: string, name: string, between: string) =>
        this.hides(name) ? `${quote}${name}${quote}${between}${quote}${hiddenText}${quote}` : all,
      );
    }
    return { text: masked, hidden: masked !== text };
  }

  #parts(text: string): string {
    return text.replaceAll(formPart, (all: string, head: string, name: string) =>
      this.hides(name) ? head + hiddenText : all,
    );
  }

  #form(text: string): Redacted {
    let hidden = false;
    const pairs = text.split("&").map((pair) => {
      const equals = pair.indexOf("=");
      if (equals < 0 || !this.hides(unescaped(pair.slice(0, equals)))) return pair;
      hidden = true;
      return pair.slice(0, equals + 1) + hiddenText;
    });
    return { text: pairs.join("&"), hidden };
  }
}

/** Header lines whose value is an address. */
const withAddress = new Set(["referer", "location", "content-location"]);

/** A part of a form (RFC 7578): its name, the rest of its header lines, what it holds. */
const formPart = /(\bname="([^"\r\n]{1,200})"[^\r\n]*\r\n(?:[^\r\n]+\r\n){0,5}\r\n)((?:(?!\r\n--)[^])*)/g;

/** A member whose value is a text, a number or a word; of a value that is cut off, what is there. */
const jsonMember = /"([^"\\\n]{1,100})"(\s*:\s*)("(?:[^"\\]|\\.)*"?|[-+.\w]+)/g;

/** The same in a text that is JSON itself, as logs and queues have it. */
const textMember = /\\"([^"\\\n]{1,100})\\"(\s*:\s*)(\\"(?:\\{3}"|\\{4}|[^"\\]|\\[^"\\])*(?:\\")?|[-+.\w]+)/g;

/** A name as it is meant; one that is not escaped rightly, as it is written. */
function unescaped(name: string): string {
  if (name.length > maxNameChars || !name.includes("%")) return name;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function escapeForRegExp(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
