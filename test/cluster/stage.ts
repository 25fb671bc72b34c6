// The head of a file of tests: this very product in the cluster, laptops that run nothing, namespaces of the file's own;
// and all of it gone after the file's last test and its own afterAll(). A test that reaches its time limit never comes to
// what it would have disposed: its programs are ended for it, so that they answer no test after it.
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import { endNewerPrograms, freshNamespaces, prepare, removeNamespaces, type Lab } from "./lab.ts";

export function stage(labs: readonly Lab[], ...namespaces: readonly string[]): void {
  const quit = async (): Promise<void> => void (await Promise.all(labs.map((lab) => lab.quit())));
  beforeAll(async () => {
    await prepare();
    await quit();
    await freshNamespaces(...namespaces);
  });
  let endPrograms = endNewerPrograms();
  beforeEach(() => void (endPrograms = endNewerPrograms()));
  afterEach(() => endPrograms());
  afterAll(async () => {
    await quit();
    await removeNamespaces(...namespaces);
  });
}
