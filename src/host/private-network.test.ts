import { expect, test } from "vitest";
import { explain } from "./private-network.ts";

test.each([
  ["kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"],
  ["kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"],
  ["user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"],
  ["none", "", "a container may forbid user namespaces"],
])("explain() names the setting %s that stands in the way, and the way round it", (path, value, advice) => {
  const said = explain((asked) => (asked === path ? value : undefined));
  expect(said).toContain(advice);
  expect(said).toContain("use `telepresence connect --proxy`");
});
