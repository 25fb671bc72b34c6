// Callers that never close their connections, at full speed, while intercepts come and go (TARGETS: 0 failed requests)
// and while the laptop's link is cut at random moments (0 idempotent requests lost). Counts are in the output.
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { KeptCaller, httpServer } from "./http-ends.ts";
import { TestLaptop, randomFrom, testAgent, testManager } from "./harness.ts";

const callers = 50;
const cycles = Number(process.env["ATTACH_CYCLES"] ?? 20);
const cuts = Number(process.env["LINK_CUTS"] ?? 20);
const seed = Number(process.env["LOAD_SEED"] ?? 1);

const report = (line: string): void => void process.stdout.write(`${line}\n`);

describe("callers with kept connections", () => {
  test.each([[undefined], [true]])(
    "follow intercepts and their ends without a failed request (HTTP by the service's word: %s)",
    async (http) => {
      await using manager = await testManager();
      await using app = await httpServer("app");
      await using laptopProcess = await httpServer("laptop");
      await using laptop = await TestLaptop.connect(manager);
      laptop.serveWith(laptopProcess.port);
      await using agent = await testAgent({ containerPort: app.port, http });
      await laptop.introduce(manager, agent);
      const counts = { app: 0, laptop: 0 };
      const ports = new Set<number | undefined>();
      let going = true;
      const call = async (number: number): Promise<void> => {
        using caller = new KeptCaller(agent.agentPorts[0]!);
        const body = Buffer.alloc(10 + number * 100, number);
        while (going) {
          const asked = number % 3 === 0 ? { method: "POST", body } : number % 3 === 1 ? { method: "PUT", body } : {};
          const got = await caller.ask({ ...asked, path: `/${number}` });
          expect(got.status).toBe(200);
          expect(got.body).toContain(` /${number} `);
          counts[got.body.split(" ")[0] as "app" | "laptop"] += 1;
          ports.add(got.localPort);
        }
      };
      const calls = Promise.all(Array.from({ length: callers }, (_, number) => call(number)));
      const until = async (done: () => boolean): Promise<void> => {
        while (!done()) await Promise.race([turn(), calls]);
      };
      for (let cycle = 0; cycle < cycles; cycle += 1) {
        const { id } = await laptop.intercept("hello", app.port);
        const [byLaptop, byApp] = [counts.laptop, counts.app];
        await until(() => counts.laptop >= byLaptop + callers);
        // At most those that were under way.
        expect(counts.app - byApp).toBeLessThanOrEqual(callers);
        await laptop.remove(id);
        const after = counts.app;
        await until(() => counts.app >= after + callers);
      }
      going = false;
      await calls;
      expect(ports.size).toBe(callers); // nobody had to connect anew
      laptopProcess.server.closeAllConnections();
      while (laptop.session.streamCount > 1) await turn(); // its API is the one that stays
      report(`${cycles} attaches and leaves: ${counts.app} + ${counts.laptop} requests, 0 failed`);
    },
    60_000,
  );

  test("lose no idempotent request when the laptop's link is cut, and are told why of others", async () => {
    const random = randomFrom(seed);
    await using manager = await testManager();
    await using app = await httpServer("app");
    await using laptopProcess = await httpServer("laptop");
    await using agent = await testAgent({ containerPort: app.port });
    const counts = { app: 0, laptop: 0, told: 0 };
    let going = true;
    const call = async (number: number): Promise<void> => {
      using caller = new KeptCaller(agent.agentPorts[0]!);
      const body = Buffer.alloc(10 + number * 100, number);
      while (going) {
        const isPost = number % 3 === 0;
        const asked = isPost ? { method: "POST", body } : number % 3 === 1 ? { method: "PUT", body } : {};
        const got = await caller.ask(asked);
        if (got.status === 502) {
          expect(isPost).toBe(true);
          expect(got.body).toMatch(/^telepresence: the laptop's answer to this POST was lost/);
          counts.told += 1;
        } else {
          expect(got.status).toBe(200);
          counts[got.body.split(" ")[0] as "app" | "laptop"] += 1;
        }
      }
    };
    const calls = Promise.all(Array.from({ length: 30 }, (_, number) => call(number)));
    for (let round = 0; round < cuts; round += 1) {
      const laptop = await TestLaptop.connect(manager);
      laptop.serveWith(laptopProcess.port);
      await laptop.introduce(manager, agent);
      await laptop.intercept("hello", app.port);
      const enough = counts.laptop + 30 + random(100);
      while (counts.laptop < enough) await Promise.race([turn(), calls]);
      laptop.transport.destroy();
      const then = counts.app + 30;
      while (counts.app < then) await Promise.race([turn(), calls]);
    }
    going = false;
    await calls;
    expect(counts.laptop).toBeGreaterThan(cuts * 30);
    report(`${cuts} cuts: ${counts.app} + ${counts.laptop} requests, ${counts.told} POSTs told why, 0 idempotent lost`);
  }, 60_000);
});
