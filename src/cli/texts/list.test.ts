import { describe, expect, test } from "vitest";
import type { ListedWorkload } from "#wire/control-api.ts";
import { formatList, selectWorkloads } from "./list.ts";

const item = (name: string, kind: ListedWorkload["kind"], more: Partial<ListedWorkload> = {}): ListedWorkload => ({
  name,
  kind,
  namespace: "default",
  intercepts: [],
  ...more,
});
const all = { interceptsOnly: false, agentsOnly: false, interceptableOnly: false };
const shown = { debug: false, interceptsOnly: false };

describe("formatList()", () => {
  test("names the kind where two workloads share a name", () => {
    const workloads = selectWorkloads(
      [item("db", "StatefulSet"), item("db", "Deployment"), item("web", "Deployment")],
      all,
    );
    expect(formatList(workloads, shown).map((line) => line.split(":")[0]?.trimEnd())).toEqual([
      "deployment db",
      "statefulset db",
      "web",
    ]);
  });

  test("says what there is none of", () => {
    expect(formatList([], shown)).toEqual([expect.stringMatching(/^No Workloads /)]);
    expect(formatList([], { ...shown, interceptsOnly: true })).toEqual(["No intercepts"]);
  });

  test("tells why a workload with an agent cannot be intercepted", () => {
    const lines = formatList(
      [item("a", "Deployment", { agentVersion: "1", notInterceptableReason: "no ports" })],
      shown,
    );
    expect(lines).toEqual(["a: not interceptable (traffic-agent already installed): no ports"]);
  });

  test("tells whose process replaces a container, and when nobody's does any more", () => {
    const replaced = { container: "app", by: "ada@laptop" };
    const workloads = [item("a", "Deployment", { replaced }), item("b", "Deployment")];
    expect(formatList(selectWorkloads(workloads, { ...all, replacementsOnly: true }), shown)).toEqual([
      "a: container app is replaced by ada@laptop, whose process is gone",
    ]);
    expect(formatList([], { ...shown, replacementsOnly: true })).toEqual(["No replacements"]);
  });
});
