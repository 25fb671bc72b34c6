import { createSocket } from "node:dgram";
import { once } from "node:events";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppAddresses } from "#agent/inbound/app-addresses.ts";
import { PassedUdp } from "./pass-udp.ts";
import { HeldDatagrams, Unanswered } from "./unanswered.ts";

// One caller who went on talking had every other caller's datagrams come from loopback, whatever the application
// listened on meanwhile (DESIGN 15).
test("a flow that goes on over loopback does not lead others there for ever", async () => {
  const app = createSocket("udp4").bind(0, "127.0.0.1");
  app.on("message", (text, from) => app.send(text, from.port, from.address));
  await once(app, "listening");
  const clock = new FakeClock();
  const addresses = new AppAddresses(["127.0.0.2"], clock);
  let answered = Promise.withResolvers<void>();
  const flow = await PassedUdp.open({
    addresses,
    reached: "127.0.0.2",
    containerPort: app.address().port,
    unanswered: new Unanswered(clock, new HeldDatagrams()),
    onAnswer: () => answered.resolve(),
    onEnd: (reason) => answered.reject(new Error(reason)),
  });
  flow.send(Buffer.from("1"));
  await answered.promise;
  expect(addresses.candidates("127.0.0.2")[0]).toBe("127.0.0.1");
  await clock.advance(6000);
  answered = Promise.withResolvers();
  flow.send(Buffer.from("2"));
  await answered.promise;
  expect(addresses.candidates("127.0.0.2")[0]).toBe("127.0.0.2");
  flow.close();
  await new Promise<void>((resolve) => app.close(() => resolve()));
});
