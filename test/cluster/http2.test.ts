// gRPC over kept connections while a personal intercept comes and goes by an ephemeral agent: no call fails, whatever its
// kind; those that the filter takes are the laptop's, all others the application's.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { countOf, patience } from "#test/rounds.ts";
import { Lab, apply, fixture, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures, type Call } from "./load.ts";
import { stage } from "./stage.ts";

const namespace = "it-http2";
const lab = new Lab({ managerNamespace: "it-http2-manager" });
const cycles = countOf(3, 60);

stage([lab], namespace);
afterAll(async () => {
  await lab.cli(["uninstall", "--everything"]);
});

/** Of grpc-load.mjs. */
type GrpcCall = Call & { readonly isAnn: boolean; readonly method: string };

const shop = {
  name: "shop",
  ports: [{ name: "grpc", containerPort: 9000 }],
  servicePorts: [{ name: "grpc", port: 9000, targetPort: "grpc" }],
  container: {
    command: [
      "node",
      "--input-type=module",
      "-e",
      readFileSync(join(import.meta.dirname, "fixtures/grpc-server.mjs"), "utf8"),
    ],
    env: [
      { name: "NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "PORT", value: "9000" },
    ],
    readinessProbe: { tcpSocket: { port: 9000 }, periodSeconds: 1 },
  },
};

test(
  `gRPC through attach and leave, ${cycles} cycles: no call fails`,
  { timeout: patience(300_000, 3, 60) },
  async () => {
    await apply(namespace, ...webApp(shop));
    await rolledOut(namespace, "deployment/shop");
    await using server = lab.spawn(fixture("grpc-server.mjs", "18840", "laptop"));
    await server.says("listens on");
    await lab.ok("connect", "-n", namespace);
    const target = `http://shop.${namespace}:9000`;
    const loads = [await Load.start({ namespace, target, program: "grpc-load.mjs" })];
    const startMs = Date.now();
    const calls = async (sinceMs: number): Promise<readonly GrpcCall[]> =>
      (await Promise.all(loads.map((load) => load.calls(sinceMs)))).flat() as GrpcCall[];
    /** The latest calls are all answered so, but for those on connections that are older than the first attach. */
    const settled = async (what: string, sinceMs: number, isRight: (call: GrpcCall) => boolean): Promise<void> => {
      for (const [index, load] of loads.entries()) {
        await until(what, async () => {
          const all = (await load.calls(sinceMs)) as GrpcCall[];
          const last = all.filter(({ kept }) => !kept || index > 0).slice(-40);
          return last.length === 40 && last.every(isRight);
        });
      }
    };
    const flags = ["--port", "18840", "--http-header", "x-user=ann", "--agent", "ephemeral"];
    for (let cycle = 1; cycle <= cycles; cycle += 1) {
      expect(await lab.ok("intercept", "shop", ...flags)).toContain('x-user"] == "ann"');
      await settled("the laptop's answers", Date.now(), ({ isAnn, who }) => (who === "laptop") === isAnn);
      // Its connections go through the agent from the beginning, and stay.
      if (cycle === 1) loads.push(await Load.start({ namespace, target, program: "grpc-load.mjs", name: "load-late" }));
      await lab.ok("leave", "shop");
      await settled("the application's answers", Date.now(), ({ who }) => who.startsWith("shop-"));
    }
    const all = await calls(startMs);
    const byLaptop = all.filter(({ who }) => who === "laptop");
    const kinds = Object.fromEntries(
      ["Unary", "List", "Chat", "Missing"].map((kind) => [
        kind,
        byLaptop.filter(({ method }) => method === kind).length,
      ]),
    );
    report(`gRPC through attach and leave, ${cycles} cycles`, {
      calls: all.length,
      onKept: all.filter(({ kept }) => kept).length,
      failed: failures(all).length,
      ...countByWho(all),
      laptopOnKept: byLaptop.filter(({ kept }) => kept).length,
      laptopByKind: kinds,
    });
    expect(failures(all, startMs)).toEqual([]);
    expect(byLaptop.filter(({ isAnn }) => !isAnn)).toEqual([]);
    for (const count of Object.values(kinds)) expect(count).toBeGreaterThan(0);
  },
);
