// Callers that keep one connection of HTTP/2 each, with several streams at once, at full speed: while intercepts come and go
// (TARGETS: 0 failed requests) and while the laptop's link is cut at random moments (0 idempotent requests lost). Counts
// are in the output.
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { KeptGrpcCaller, grpcServer } from "./grpc-ends.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import type { Http2Got } from "./http2-ends.ts";
import { TestLaptop, randomFrom, testAgent, testManager } from "./harness.ts";

const callers = 10;
const streams = 5;
const cycles = Number(process.env["ATTACH_CYCLES"] ?? 20);
const cuts = Number(process.env["LINK_CUTS"] ?? 20);
const seed = Number(process.env["LOAD_SEED"] ?? 1);

const report = (line: string): void => void process.stdout.write(`${line}\n`);
const askedOf = (number: number) => {
  const body = Buffer.alloc(10 + number * 100, number);
  return { path: `/${number}`, ...[{ method: "POST", body }, { method: "PUT", body }, {}][number % 3] };
};

describe("callers with kept connections of HTTP/2", () => {
  test.each([[undefined], [true]])(
    "follow intercepts and their ends without a failed request (HTTP by the service's word: %s)",
    async (http) => {
      await using manager = await testManager();
      await using app = await http2Server("app");
      await using laptopProcess = await http2Server("laptop");
      await using laptop = await TestLaptop.connect(manager);
      laptop.serveWith(laptopProcess.port);
      await using agent = await testAgent({ containerPort: app.port, http });
      await laptop.introduce(manager, agent);
      const counts = { app: 0, laptop: 0 };
      let going = true;
      const call = async (number: number): Promise<void> => {
        using caller = new KeptHttp2Caller(agent.agentPorts[0]!);
        const stream = async (): Promise<void> => {
          while (going) {
            const got = await caller.ask(askedOf(number));
            expect(got.status).toBe(200);
            expect(got.body).toContain(` /${number} `);
            counts[got.body.split(" ")[0] as "app" | "laptop"] += 1;
          }
        };
        await Promise.all(Array.from({ length: streams }, stream));
        expect(caller.goaways).toBe(0);
      };
      const calls = Promise.all(Array.from({ length: callers }, (_, number) => call(number)));
      const until = async (done: () => boolean): Promise<void> => {
        while (!done()) await Promise.race([turn(), calls]);
      };
      for (let cycle = 0; cycle < cycles; cycle += 1) {
        const { id } = await laptop.intercept("hello", app.port);
        const [byLaptop, byApp] = [counts.laptop, counts.app];
        await until(() => counts.laptop >= byLaptop + callers * streams);
        // At most those that were under way.
        expect(counts.app - byApp).toBeLessThanOrEqual(callers * streams);
        await laptop.remove(id);
        const after = counts.app;
        await until(() => counts.app >= after + callers * streams);
      }
      going = false;
      await calls;
      while (laptop.session.streamCount > 1) await turn(); // its API is the one that stays
      report(`HTTP/2: ${cycles} attaches and leaves: ${counts.app} + ${counts.laptop} requests, 0 failed`);
    },
    60_000,
  );

  test("lose no idempotent request when the laptop's link is cut, and are told why of others", async () => {
    const random = randomFrom(seed);
    await using manager = await testManager();
    await using app = await http2Server("app");
    await using laptopProcess = await http2Server("laptop");
    await using agent = await testAgent({ containerPort: app.port });
    const counts = { app: 0, laptop: 0, told: 0, cut: 0 };
    let going = true;
    const take = (isPost: boolean, got: Http2Got): void => {
      if (got.status === 502) {
        expect(isPost).toBe(true);
        expect(got.body).toMatch(/^telepresence: the laptop's answer to this POST was lost/);
        counts.told += 1;
      } else {
        expect(got.status).toBe(200);
        counts[got.body.split(" ")[0] as "app" | "laptop"] += 1;
      }
    };
    const call = async (number: number): Promise<void> => {
      using caller = new KeptHttp2Caller(agent.agentPorts[0]!);
      const stream = async (): Promise<void> => {
        while (going) {
          let begun = false;
          try {
            take(number % 3 === 0, await caller.ask({ ...askedOf(number), onHead: () => (begun = true) }));
          } catch (error) {
            // Its answer had begun when the link was cut: it must not end as if it were whole.
            if (!begun) throw error;
            counts.cut += 1;
          }
        }
      };
      await Promise.all(Array.from({ length: streams }, stream));
      expect(caller.goaways).toBe(0);
    };
    const calls = Promise.all(Array.from({ length: callers }, (_, number) => call(number)));
    for (let round = 0; round < cuts; round += 1) {
      const laptop = await TestLaptop.connect(manager);
      laptop.serveWith(laptopProcess.port);
      await laptop.introduce(manager, agent);
      await laptop.intercept("hello", app.port);
      const enough = counts.laptop + callers * streams + random(200);
      while (counts.laptop < enough) await Promise.race([turn(), calls]);
      laptop.transport.destroy();
      const then = counts.app + callers * streams;
      while (counts.app < then) await Promise.race([turn(), calls]);
    }
    going = false;
    await calls;
    report(
      `HTTP/2: ${cuts} cuts: ${counts.app} + ${counts.laptop} requests, ${counts.told} POSTs told why, ` +
        `${counts.cut} answers reset amid, 0 idempotent lost`,
    );
  }, 60_000);

  test("of gRPC follow intercepts without a failed call, streams included", async () => {
    await using manager = await testManager();
    await using app = await grpcServer("app");
    await using laptopProcess = await grpcServer("laptop");
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(laptopProcess.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    const counts = { app: 0, laptop: 0 };
    let going = true;
    const call = async (number: number): Promise<void> => {
      using caller = new KeptGrpcCaller(agent.agentPorts[0]!);
      while (going) {
        const got = await [() => caller.unary(), () => caller.list(), () => caller.chat(["a", "b"])][number % 3]!();
        expect(got.code).toBe(0);
        const who = got.messages[0]!.startsWith("app") ? "app" : "laptop";
        expect(got.messages.every((message) => message.startsWith(who))).toBe(true);
        counts[who] += 1;
      }
    };
    const calls = Promise.all(Array.from({ length: callers }, (_, number) => call(number)));
    for (let cycle = 0; cycle < cycles; cycle += 1) {
      const { id } = await laptop.intercept("hello", app.port);
      const byLaptop = counts.laptop + 3 * callers;
      while (counts.laptop < byLaptop) await Promise.race([turn(), calls]);
      await laptop.remove(id);
      const byApp = counts.app + 3 * callers;
      while (counts.app < byApp) await Promise.race([turn(), calls]);
    }
    going = false;
    await calls;
    report(`gRPC: ${cycles} attaches and leaves: ${counts.app} + ${counts.laptop} calls, 0 failed`);
  }, 60_000);
});
