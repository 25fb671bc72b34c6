// What a person reads while waiting. One line a step: what is being done and how long that usually takes.

export type Say = (line: string) => void;

export const silent: Say = () => undefined;

/** Prints to stdout with the seconds since `startedMs`. */
export function sayWithTime(startedMs = performance.now()): Say {
  return (line) => {
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6);
    process.stdout.write(`[${seconds} s] ${line}\n`);
  };
}
