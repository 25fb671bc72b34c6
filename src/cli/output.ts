// The only writer to the terminal. Text goes out as it comes; with --output everything is kept for one envelope
// {cmd, stdout, stderr, err} (2.20), with --format for one bare object (2.29). Results go to stdout, warnings to
// stderr with `Warning: ` before them, progress to a terminal only, where it is erased again.
import type { AppError } from "#base/error.ts";
import { formatCauseChain, formatError } from "#base/error.ts";

export type Syntax = "json" | "json-stream" | "yaml";
/** `text` for people; `envelope` is --output, `object` is --format. */
export type OutputMode = { readonly kind: "text" } | { readonly kind: "envelope" | "object"; readonly syntax: Syntax };
export type ProgressMode = "auto" | "plain" | "quiet";

export interface Sink {
  write(text: string): void;
  readonly isTTY: boolean;
  /** Width of the terminal; progress that wraps could not be erased. */
  readonly columns: number;
}

export interface OutputOptions {
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly mode: OutputMode;
  readonly progress: ProgressMode;
  readonly verbose: boolean;
}

const eraseLine = "\r\u001b[K";

export class Output {
  readonly #options: OutputOptions;
  readonly #lines: string[] = [];
  readonly #warnings: string[] = [];
  #data: unknown;
  #bare = false;
  #progressShown = false;
  #lastProgress = "";

  constructor(options: OutputOptions) {
    this.#options = options;
  }

  get mode(): OutputMode {
    return this.#options.mode;
  }

  /** One line of the result. */
  line(text: string): void {
    if (this.mode.kind === "text") this.#write(this.#options.stdout, `${text}\n`);
    else this.#lines.push(text);
  }

  lines(texts: readonly string[]): void {
    for (const text of texts) this.line(text);
  }

  /** The result for scripts, in place of the text; `bare` results have no envelope even with --output. */
  data(value: unknown, options: { readonly bare: boolean } = { bare: false }): void {
    this.#data = value;
    this.#bare = options.bare;
  }

  warn(text: string): void {
    const line = `Warning: ${oneLine(text)}`;
    if (this.mode.kind === "text") this.#write(this.#options.stderr, `${line}\n`);
    else this.#warnings.push(line);
  }

  /** What is going on now. Never part of a result. */
  progress(text: string): void {
    const { stderr, progress } = this.#options;
    const line = oneLine(text);
    if (progress === "quiet" || line === this.#lastProgress) return;
    this.#lastProgress = line;
    if (progress === "plain") {
      stderr.write(`${line}\n`);
    } else if (stderr.isTTY) {
      stderr.write(`${eraseLine}${line.slice(0, Math.max(10, stderr.columns - 1))}`);
      this.#progressShown = true;
    }
  }

  /** Leaves the terminal's line clean, before somebody else writes to it. */
  clearProgress(): void {
    if (this.#progressShown) this.#options.stderr.write(eraseLine);
    this.#progressShown = false;
  }

  /** Says what only the terminal's user needs, such as the command that is about to ask for a password. */
  announce(text: string): void {
    if (!this.#options.stderr.isTTY) return;
    this.#write(this.#options.stderr, `${text}\n`);
  }

  /** What has to be read before the command can end: a line of the result, or beside a result for scripts. */
  tell(text: string): void {
    if (this.mode.kind === "text") this.line(text);
    else this.#write(this.#options.stderr, `${text}\n`);
  }

  /** A question; what is typed stands behind it. */
  ask(text: string): void {
    this.#write(this.#options.stderr, `${text} `);
  }

  /** Writes what was kept; the last call of a run. */
  async finish(command: string, error?: AppError): Promise<void> {
    this.clearProgress();
    const { mode } = this;
    if (mode.kind === "text") {
      if (error !== undefined) this.#printError(error);
      return;
    }
    const document = mode.kind === "envelope" ? this.#envelope(command, error) : this.#object(error);
    if (document === undefined) return;
    const list = mode.syntax === "json-stream" && Array.isArray(document) ? (document as unknown[]) : [document];
    for (const item of list) this.#options.stdout.write(await serialize(item, mode.syntax));
  }

  #write(sink: Sink, text: string): void {
    this.clearProgress();
    sink.write(text);
  }

  #printError(error: AppError): void {
    const { stderr, verbose } = this.#options;
    stderr.write(`telepresence: error: ${formatError(error)}\n`);
    if (!verbose) return;
    for (const line of formatCauseChain(error.cause)) stderr.write(`  caused by ${line}\n`);
  }

  /** An error always gets the envelope; nothing is said when only the command's name would be. */
  #envelope(command: string, error: AppError | undefined): unknown {
    if (this.#bare && error === undefined) return this.#data;
    const stdout = this.#data ?? joinLines(this.#lines);
    const stderr = joinLines(this.#warnings);
    if (stdout === undefined && stderr === undefined && error === undefined) return undefined;
    return { cmd: command, stdout, stderr, err: error && formatError(error), code: error?.code };
  }

  /** Warnings have no place in a bare object, so they stay lines on stderr. */
  #object(error: AppError | undefined): unknown {
    for (const warning of this.#warnings) this.#options.stderr.write(`${warning}\n`);
    if (error !== undefined) return { error: formatError(error), code: error.code };
    if (this.#data !== undefined) return this.#data;
    const stdout = joinLines(this.#lines);
    return stdout === undefined ? undefined : { stdout };
  }
}

const joinLines = (lines: readonly string[]): string | undefined =>
  lines.length === 0 ? undefined : `${lines.join("\n")}\n`;

const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, " ").trim();

async function serialize(value: unknown, syntax: Syntax): Promise<string> {
  const plain = JSON.stringify(value);
  if (syntax !== "yaml") return `${plain}\n`;
  const { stringify } = await import("./yaml.ts");
  return stringify(JSON.parse(plain)); // by way of JSON, so that absent values are absent
}

/** The process's own streams. A reader that left, as `| head -1` does, is no error of ours. */
export function processSinks(): ProcessSinks {
  const { stdout, stderr } = process;
  let lost: NodeJS.ErrnoException | undefined;
  stderr.on("error", () => undefined);
  stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") lost ??= error;
  });
  const finish = async (): Promise<boolean> => {
    await flush(stdout);
    if (lost !== undefined) stderr.write(`telepresence: error: the output cannot be written: ${lost.message}\n`);
    return lost === undefined;
  };
  return { stdout: sinkOf(stdout), stderr: sinkOf(stderr), finish };
}

export interface ProcessSinks {
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** Waits until everything has left the process; false when it could not, as on a full disk. */
  finish(): Promise<boolean>;
}

function sinkOf(stream: NodeJS.WriteStream): Sink {
  return {
    write: (text) => void stream.write(text),
    get isTTY() {
      return stream.isTTY === true;
    },
    get columns() {
      return stream.columns || 80; // 0 on a terminal that nobody has sized
    },
  };
}

/** Resolves when everything written before has left the process, or never will. */
function flush(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.destroyed || stream.writableLength === 0) return Promise.resolve();
  return new Promise((resolve) => stream.write("", () => resolve()));
}
