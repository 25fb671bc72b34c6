// A pod whose application is tapped: manager, agent and one laptop.
import type { Agent } from "#agent/agent.ts";
import type { Manager } from "#manager/manager.ts";
import type { InterceptInfo, InterceptSpec } from "#wire/manager-api.ts";
import { TestLaptop, testAgent, testManager } from "./harness.ts";
import type { TestAgentOptions } from "./harness.ts";
import { httpServer } from "./http-ends.ts";

export interface Lab extends AsyncDisposable {
  readonly manager: Manager;
  readonly agent: Agent;
  readonly laptop: TestLaptop;
  readonly containerPort: number;
  /** Where callers connect. */
  readonly port: number;
  /** Of the laptop, unless another is given. */
  readonly tap: (more?: Partial<InterceptSpec>, laptop?: TestLaptop, name?: string) => Promise<InterceptInfo>;
  /** One more laptop, introduced. */
  readonly join: (client: string) => Promise<TestLaptop>;
}

export async function startLab(
  app?: AsyncDisposable & { readonly port: number },
  options: Partial<TestAgentOptions> = {},
): Promise<Lab> {
  const server = app ?? (await httpServer("app"));
  const manager = await testManager({ idleOwnerMs: 0 }); // laptops may be lost here, and others come
  const containerPort = server.port;
  const agent = await testAgent({ containerPort, ...options });
  const laptops: TestLaptop[] = [];
  const join = async (client: string): Promise<TestLaptop> => {
    const laptop = await TestLaptop.connect(manager, client);
    await laptop.introduce(manager, agent);
    laptops.push(laptop);
    return laptop;
  };
  const laptop = await join("ada@laptop");
  const protocol = options.protocol ?? "tcp";
  return {
    manager,
    agent,
    laptop,
    containerPort,
    port: agent.agentPorts[0] ?? 0,
    tap: (more = {}, of = laptop, name = "copies") =>
      of.intercept(name, containerPort, protocol, { kind: "wiretap", ...more }),
    join,
    [Symbol.asyncDispose]: async () => {
      for (const one of laptops) await one[Symbol.asyncDispose]();
      await agent[Symbol.asyncDispose]();
      await manager[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}
