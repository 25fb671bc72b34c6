// The story: koffi's poll callback runs outside Node's own frames, so the promise that a packet or a helper's answer
// settled was continued only when something else happened in the process, up to half a minute later.
import { once } from "node:events";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { expect, test } from "vitest";
import { watchReadable } from "./ffi.ts";
import { descriptorOf } from "./peer-cred.ts";

test("watchReadable() continues promises in the turn in which the descriptor became readable", async () => {
  const server = createServer({ pauseOnConnect: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [accepted] = (await once(server, "connection")) as [Socket];
  const order: string[] = [];
  await new Promise<void>((resolve) => {
    const watch = watchReadable(descriptorOf(accepted), () => {
      watch.close();
      void Promise.resolve().then(() => order.push("promise"));
      setImmediate(() => {
        order.push("next turn");
        resolve();
      });
    });
    client.write("x");
  });
  expect(order).toEqual(["promise", "next turn"]);
  client.destroy();
  accepted.destroy();
  server.close();
});
