// Two connections of one user to one cluster, each with a network device.
import { expect, test } from "vitest";
import { apply, Lab, rolledOut, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const lab = new Lab({});
const [first, later] = ["it-beside-one", "it-beside-two"];
stage([lab], first, later);

test("two connections to one cluster have their names and ways beside one another, and each outlives the other", async () => {
  for (const namespace of [first, later]) {
    await apply(namespace, ...webApp({ name: "web" }));
    await rolledOut(namespace, "deployment/web");
  }
  const reaches = async (host: string): Promise<boolean> =>
    (await lab.sh(`curl -sS -o /dev/null --max-time 10 http://${host}/`)).code === 0;
  await lab.ok("connect", "-n", first);
  await lab.ok("connect", "--name", "dev", "-n", later);
  expect((await lab.sh("ip -o link")).stdout).toMatch(/: tel\d+: [^]*: tel\d+-1: /);
  for (const host of [`web.${later}`, "web", `web.${first}.default.telepresence`, "web.dev.telepresence"]) {
    expect([host, await reaches(host)]).toEqual([host, true]);
  }
  expect((await lab.sh("getent ahostsv4 web.dev.telepresence")).stdout).toMatch(/^240\./);
  await lab.ok("quit", "--use", "default");
  expect(await reaches("web")).toBe(false);
  expect(await reaches("web.dev.telepresence")).toBe(true);
  await lab.ok("connect", "-n", first);
  expect(await reaches("web")).toBe(true);
  await lab.ok("quit", "--use", "dev");
  expect(await reaches("web.dev.telepresence")).toBe(false);
  expect(await reaches("web")).toBe(true);
});
