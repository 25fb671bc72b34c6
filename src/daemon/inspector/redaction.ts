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

export const hiddenText = "•••";

export interface Redacted {
  readonly text: string;
  readonly hidden: boolean;
}

export class Redaction {
  readonly #name: RegExp;

  /** `more` are patterns of the user's: names, in which `*` stands for anything. */
  constructor(more: readonly string[] = []) {
    const alternatives = [...usualPatterns, ...more].map((pattern) =>
      pattern.split("*").map(escapeForRegExp).join('[^=&"]*'),
    );
    this.#name = new RegExp(`^(?:${alternatives.join("|")})$`, "i");
  }

  hides(name: string): boolean {
    return this.#name.test(name);
  }

  /** A path with its query. */
  target(target: string): string {
    const question = target.indexOf("?");
    return question < 0 ? target : target.slice(0, question + 1) + this.#form(target.slice(question + 1)).text;
  }

  body(text: string, contentType: string): Redacted {
    if (/[/+]json/i.test(contentType) || /^\s*[[{]/.test(text)) return this.#json(text);
    if (/x-www-form-urlencoded/i.test(contentType)) return this.#form(text);
    return { text, hidden: false };
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

  #form(text: string): Redacted {
    let hidden = false;
    const pairs = text.split("&").map((pair) => {
      const equals = pair.indexOf("=");
      if (equals < 0 || !this.hides(pair.slice(0, equals))) return pair;
      hidden = true;
      return pair.slice(0, equals + 1) + hiddenText;
    });
    return { text: pairs.join("&"), hidden };
  }
}

/** A member whose value is a text, a number or a word; of a value that is cut off, what is there. */
const jsonMember = /"([^"\\\n]{1,100})"(\s*:\s*)("(?:[^"\\]|\\.)*"?|[-+.\w]+)/g;

/** The same in a text that is JSON itself, as logs and queues have it. */
const textMember = /\\"([^"\\\n]{1,100})\\"(\s*:\s*)(\\"(?:\\{3}"|\\{4}|[^"\\]|\\[^"\\])*(?:\\")?|[-+.\w]+)/g;

function escapeForRegExp(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
