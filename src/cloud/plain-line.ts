// A line of the log as people read it at a terminal; programs and containers get the JSON itself.

/** Of the line that a logger has written, newline included. The time is the reader's own. */
export function plainLine(line: string): string {
  const { time, level, msg, ...facts } = JSON.parse(line) as Readonly<Record<string, unknown>>;
  const at = new Date(Number(time)).toLocaleTimeString("en-GB");
  const weight = level === "warn" || level === "error" ? `${level === "warn" ? "warning" : "error"}: ` : "";
  const told = Object.entries(facts).map(([name, value]) => ` ${name}=${wordOf(value)}`);
  return `${at} ${weight}${String(msg)}${told.join("")}\n`;
}

/** Quoted where it is more than a word, with what would steer a terminal as JSON has it. */
function wordOf(value: unknown): string {
  return typeof value === "string" && /^[\w.:@/-]+$/.test(value) ? value : JSON.stringify(value);
}
