// Regression: connected with `--namespace x --manager-namespace y`, `uninstall` looked into the kubeconfig's namespace,
// found no agents there, and left the manager in y.
import { describe, expect, test } from "vitest";
import { placeOf } from "./uninstall.ts";

const connection = {
  context: "work",
  server: "https://10.0.0.1:6443",
  namespace: "shop",
  managerNamespace: "tools",
};
const kube = { namespace: "default", target: { contextName: "work", server: "https://10.0.0.1:6443" } };
const target = { kube: { flags: {}, cwd: "/", env: {} } };

describe("placeOf()", () => {
  test("is the connection's, where no flag says otherwise", () => {
    expect(placeOf({ target }, { connection }, kube)).toEqual({ namespace: "shop", managerNamespace: "tools" });
    const flags = { namespace: "mine", target: { ...target, managerNamespace: "there" } };
    expect(placeOf(flags, { connection }, kube)).toEqual({ namespace: "mine", managerNamespace: "there" });
  });
  test("is the kubeconfig's without a connection, and with one to another cluster", () => {
    const alone = { namespace: "default", managerNamespace: undefined };
    expect(placeOf({ target }, undefined, kube)).toEqual(alone);
    expect(placeOf({ target }, { connection: { ...connection, context: "home" } }, kube)).toEqual(alone);
    expect(placeOf({ target }, { connection: { ...connection, server: "https://10.0.0.2" } }, kube)).toEqual(alone);
  });
});
