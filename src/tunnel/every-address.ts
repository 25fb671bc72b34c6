// What a program in a pod listens on to be reached at every address that it has. "::" stands for both families, but is none
// where the kernel was told to do without IPv6.
import { once } from "node:events";
import { createServer } from "node:net";

export async function everyAddress(): Promise<"::" | "0.0.0.0"> {
  const probe = createServer();
  try {
    probe.listen(0, "::");
    await once(probe, "listening");
    return "::";
  } catch {
    return "0.0.0.0";
  } finally {
    probe.close();
  }
}
