// Story: a laptop's process that had answered and closed its connection, as it does when an intercept ends, had its answer
// cut where the end of the connection was heard before the last bytes had been passed on.
import { once } from "node:events";
import { connect, performServerHandshake } from "node:http2";
import type { ClientHttp2Stream, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { Http2Answer } from "./http2-answer.ts";
import { Http2End } from "./http2-end.ts";
import { Fields } from "./http2-messages.ts";

/** Two ends of a connection; what the far one says stays on its way while it is held. */
class Wire {
  readonly near: Duplex;
  readonly far: Duplex;
  held: Buffer[] | undefined;

  constructor() {
    this.near = new Duplex({
      read: () => undefined,
      write: (bytes: Buffer, _encoding, done) => {
        this.far.push(bytes);
        done();
      },
    });
    this.far = new Duplex({
      read: () => undefined,
      write: (bytes: Buffer, _encoding, done) => {
        if (this.held === undefined) this.near.push(bytes);
        else this.held.push(bytes);
        done();
      },
    });
  }

  /** What was held arrives, and with it the end of the connection. */
  arriveAndEnd(): void {
    this.near.push(Buffer.concat(this.held ?? []));
    this.near.push(null);
  }
}

let wire: Wire;
let end: Http2End;
let far: ServerHttp2Session;
beforeEach(() => {
  wire = new Wire();
  far = performServerHandshake(wire.far);
  far.on("error", () => undefined);
  end = new Http2End({ duplex: wire.near, taken: undefined, clock: new FakeClock(), onGone: () => undefined });
});
afterEach(() => {
  end.destroy();
  far.destroy();
});

/** A request that was sent whole or not, and the far end's stream of it. */
async function ask(
  isWhole: boolean,
): Promise<{ readonly asked: ClientHttp2Stream; readonly answering: ServerHttp2Stream }> {
  const list = [":method", "POST", ":path", "/", ":scheme", "http", ":authority", "hello"];
  const asked = end.request(new Fields(list, {}), isWhole);
  asked.on("error", () => undefined);
  const [answering] = (await once(far, "stream")) as [ServerHttp2Stream];
  answering.on("error", () => undefined);
  return { asked, answering };
}

/** Whether its end has come, once it is closed. */
async function readWhole(stream: ClientHttp2Stream): Promise<{ readonly text: string; readonly isWhole: boolean }> {
  const seen = { text: "", isWhole: false };
  stream.on("response", () => stream.on("data", (bytes: Buffer) => (seen.text += bytes.toString())));
  stream.on("end", () => (seen.isWhole = !stream.destroyed));
  await once(stream, "close");
  return seen;
}

test("an answer that comes together with the end of its connection is whole", async () => {
  const { asked, answering } = await ask(true);
  wire.held = [];
  answering.respond({ ":status": 200 });
  answering.end("the whole answer");
  await once(answering, "close");
  const answer = readWhole(asked);
  wire.arriveAndEnd();
  expect(await answer).toEqual({ text: "the whole answer", isWhole: true });
  expect({ isLost: end.isLost, isUsable: end.isUsable }).toEqual({ isLost: true, isUsable: false });
});

test("an answer whose caller reads nothing for a while is whole when its connection has ended meanwhile", async () => {
  const { asked, answering } = await ask(true);
  const { near, far: agentsSide } = new Wire();
  const agent = performServerHandshake(agentsSide);
  const caller = connect("http://hello", { createConnection: () => near });
  const called = caller.request({ ":path": "/" });
  const [stream] = (await once(agent, "stream")) as [ServerHttp2Stream];
  const answer = new Http2Answer(asked, stream, () => undefined);
  const over = once(asked, "close");
  answering.respond({ ":status": 200 });
  answering.end(Buffer.alloc(200_000, "a")); // the caller's window is 64 KiB
  await once(answering, "close");
  wire.near.push(null);
  await over;
  expect(answer.isDone).toBe(true);
  expect((await buffer(called)).length).toBe(200_000);
  caller.destroy();
  agent.destroy();
});

test("an answer to a request that is not over yet is whole as well", async () => {
  const { asked, answering } = await ask(false);
  wire.held = [];
  answering.respond({ ":status": 413 });
  answering.end("too large");
  await once(answering, "finish");
  const seen: string[] = [];
  asked.on("response", () => asked.on("data", (bytes: Buffer) => seen.push(bytes.toString())));
  wire.arriveAndEnd();
  await once(asked, "end");
  expect({ seen, isCut: asked.destroyed }).toEqual({ seen: ["too large"], isCut: false });
});

test("an answer that did not come whole is cut when its connection ends", async () => {
  const { asked, answering } = await ask(true);
  answering.respond({ ":status": 200 });
  answering.write("half");
  const answer = readWhole(asked);
  asked.once("response", () => asked.once("data", () => wire.near.push(null)));
  expect(await answer).toEqual({ text: "half", isWhole: false });
  expect({ isLost: end.isLost, isUsable: end.isUsable }).toEqual({ isLost: true, isUsable: false });
});
