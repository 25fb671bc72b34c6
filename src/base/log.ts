// The logger that every part is handed. A message is a constant sentence, facts are fields: the same ids
// (sessionId, streamId, interceptId, flow) at every hop. Never tokens, header values, bodies or environment values.
import { pino } from "pino";

export type Fields = Readonly<Record<string, unknown>>;
export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "silent";

export interface Logger {
  trace(message: string, fields?: Fields): void;
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** A logger that adds these fields to each line. */
  child(fields: Fields): Logger;
  /** Whether `trace` lines are written; ask before building fields on a hot path. */
  readonly traceEnabled: boolean;
}

/** JSON lines to `write`; one call a line, newline included. */
export function createLogger(level: LogLevel, write: (line: string) => void): Logger {
  return wrap(pino({ level, base: null, formatters: { level: (label) => ({ level: label }) } }, { write }));
}

/**
 * `write` for a process's own output. A disk that is full or a reader that is gone loses lines, not the process: an
 * 'error' that nobody hears would end it.
 */
export function lineWriter(stream: NodeJS.WritableStream): (line: string) => void {
  stream.on("error", () => undefined);
  return (line) => void stream.write(line);
}

/** Writes nothing; for tests and tools. */
export const silentLogger: Logger = createLogger("silent", () => undefined);

function wrap(inner: pino.Logger): Logger {
  const at =
    (level: "trace" | "debug" | "info" | "warn" | "error") =>
    (message: string, fields: Fields = {}): void => {
      inner[level](fields, message);
    };
  return {
    trace: at("trace"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => wrap(inner.child(fields)),
    traceEnabled: inner.isLevelEnabled("trace"),
  };
}
