// An agent answers up to a second before the cluster tells that it runs. Asked within that time, `why` and `revoke` said
// that none of the pods has one.
import { expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { never } from "#test/flow/manager/harness.ts";
import { lab, openSession, params, quiet, stack } from "./session-lab.ts";

const question = { limit: 10, withQuery: false };

test("why() and revoke() reach agents that are not said to run yet", async () => {
  const { cluster, session, processPort } = await lab();
  cluster.agentKind = "ephemeral";
  cluster.coming.add("hello-1");
  await session.intercept(params(processPort), quiet, never);
  const { workloads } = await session.why(question, never);
  expect(workloads.flatMap(({ pods }) => pods.map(({ podName }) => podName))).toEqual(["hello-1"]);
  const other = stack.use(await openSession(cluster, "eve@laptop"));
  await other.revoke({ name: "hello", find: false }, never);
  await expect.poll(() => session.intercepts).toEqual([]);
});

test("why() knocks until such an agent listens", async () => {
  const { cluster, session, processPort } = await lab();
  cluster.agentKind = "ephemeral";
  cluster.coming.add("hello-1");
  await session.intercept(params(processPort), quiet, never);
  cluster.introductionError = new AppError("refused", "nothing listens on that port in the pod");
  const asked = session.why(question, never);
  await new Promise((resolve) => setImmediate(resolve));
  cluster.introductionError = undefined;
  expect((await asked).warnings).toEqual([]);
});
