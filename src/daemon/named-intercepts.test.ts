import { describe, expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { chooseOthers, chooseWorkloads } from "./named-intercepts.ts";

interface Place {
  readonly workload?: string;
  readonly namespace?: string;
}
const info = (id: string, client: string, place: Place = {}): InterceptInfo => {
  const [session = "", name = ""] = id.split(":");
  const { workload = name, namespace = "shop" } = place;
  return {
    id,
    spec: {
      name,
      workload: { kind: "Deployment", name: workload, namespace },
      containerName: "app",
      ports: [{ containerPort: 80, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 80 }],
    },
    client,
    sessionId: session,
    state: "active",
    message: "",
    pods: [],
    refusedByLaptop: 0,
    createdAtMs: 0,
  };
};
const infos = [
  info("s1:cart", "ann@laptop"),
  info("s2:cart", "bob@desk"),
  info("s3:mine", "me@here", { workload: "till" }),
  info("s4:cart", "eve@box", { namespace: "other" }),
];
const everybody = { infos, own: new Set(["s3:mine"]) };
const namespace = "shop";

describe("chooseOthers()", () => {
  test("takes a name with its owner, or an id from anywhere", () => {
    expect(chooseOthers(everybody, { name: "cart", user: "bob", namespace }).client).toBe("bob@desk");
    expect(chooseOthers(everybody, { name: "cart", user: "ann@laptop", namespace }).client).toBe("ann@laptop");
    expect(chooseOthers(everybody, { name: "cart", namespace: "other" }).client).toBe("eve@box");
    expect(chooseOthers(everybody, { name: "s2:cart", namespace: "other" }).client).toBe("bob@desk");
  });

  test("asks whose when there are several, and never takes one's own", () => {
    expect(() => chooseOthers(everybody, { name: "cart", namespace })).toThrow(
      expect.objectContaining({ code: "ambiguous", hint: "say whose with --owner: ann@laptop, bob@desk" }),
    );
    expect(() => chooseOthers(everybody, { name: "mine", namespace })).toThrow(/telepresence leave mine/);
    expect(() => chooseOthers(everybody, { name: "cart", user: "zoe", namespace })).toThrow(
      expect.objectContaining({
        code: "intercept_not_found",
        message: "there is no intercept cart of zoe in namespace shop",
      }),
    );
  });
});

describe("chooseWorkloads()", () => {
  const names = (name?: string): readonly string[] =>
    chooseWorkloads(everybody, name, namespace).map((one) => one.name);

  test("finds an intercept's workload, and a workload that is intercepted under another name", () => {
    expect(names()).toEqual(["till"]);
    expect(names("mine")).toEqual(["till"]);
    expect(names("till")).toEqual(["till"]);
    expect(names("cart")).toEqual(["cart"]);
  });

  test("says what is intercepted where the name is not", () => {
    expect(() => names("crt")).toThrow(
      expect.objectContaining({
        message: "nothing intercepts crt in namespace shop, so its application gets all requests",
        hint: expect.stringContaining("cart (Deployment cart in namespace shop) by ann@laptop"),
      }),
    );
    expect(() => chooseWorkloads({ infos: [], own: new Set() }, undefined, namespace)).toThrow(
      expect.objectContaining({ message: "nothing is intercepted now, so every application gets its own requests" }),
    );
    expect(() => chooseWorkloads({ infos, own: new Set() }, undefined, namespace)).toThrow(
      expect.objectContaining({
        message: "you have no intercept, so a name is needed",
        hint: expect.stringContaining("cart (Deployment cart in namespace shop) by ann@laptop"),
      }),
    );
  });
});
