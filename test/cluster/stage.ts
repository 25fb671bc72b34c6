// The head of a file of tests: this very product in the cluster, laptops that run nothing, namespaces of the file's own;
// and all of it gone after the file's last test and its own afterAll().
import { afterAll, beforeAll } from "vitest";
import { freshNamespaces, prepare, removeNamespaces, type Lab } from "./lab.ts";

export function stage(labs: readonly Lab[], ...namespaces: readonly string[]): void {
  const quit = async (): Promise<void> => void (await Promise.all(labs.map((lab) => lab.quit())));
  beforeAll(async () => {
    await prepare();
    await quit();
    await freshNamespaces(...namespaces);
  });
  afterAll(async () => {
    await quit();
    await removeNamespaces(...namespaces);
  });
}
