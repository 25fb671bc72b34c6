// Whether a secret of the cluster is in a file of the laptop: before, and no more afterwards.
import { expect } from "vitest";
import { report, until, type Lab } from "./lab.ts";

export interface SecretWatch {
  /** Files of the laptop that hold it. */
  readonly secretFiles: () => Promise<readonly string[]>;
  /** `before`: how many there were. */
  readonly nothingLeft: (before: readonly string[]) => Promise<void>;
}

export function watchSecret(lab: Lab, secret: () => string): SecretWatch {
  const secretFiles = async (): Promise<readonly string[]> => {
    const places = "/run/user /dev/shm /tmp/telepresence-* /home";
    const found = await lab.rootSh(`grep -rlsF '${secret()}' ${places} 2>/dev/null`);
    return found.split("\n").filter((path) => path !== "");
  };
  const nothingLeft = async (before: readonly string[]): Promise<void> => {
    expect(before.length).toBeGreaterThan(0);
    const startMs = performance.now();
    await until("no file with a secret", async () => (await secretFiles()).length === 0, { limitMs: 10_000 }).catch(
      async () => expect(await secretFiles()).toEqual([]),
    );
    report("files with a secret: before, after, ms", [before.length, 0, Math.round(performance.now() - startMs)]);
  };
  return { secretFiles, nothingLeft };
}
