// What a laptop calls itself, as people are shown it when they are asked to log it in.

/** Printable and short, whatever was sent. */
export function readDeviceName(text: string): string {
  const name = text
    .replace(/[^\x20-\x7e]/g, "")
    .trim()
    .slice(0, 60);
  return name === "" ? "a laptop" : name;
}
