// A story of our own: an intercept whose `--address` was mistyped became active, and every caller was refused.
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { requireTargetHost } from "./target-host.ts";

const { signal } = new AbortController();
const unknown = (): Promise<never> =>
  Promise.reject(Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" }));

test.each(["127.0.0.1", "::1", "fe80::1%eth0"])("takes the address %s without a look-up", async (host) => {
  await requireTargetHost(host, { clock: new FakeClock(), lookUp: unknown }, signal);
});

test("takes a name that has an address", async () => {
  const asked: string[] = [];
  const lookUp = (name: string): Promise<unknown> => Promise.resolve(asked.push(name));
  await requireTargetHost("workbench", { clock: new FakeClock(), lookUp }, signal);
  expect(asked).toEqual(["workbench"]);
});

test("refuses a name that nobody knows", async () => {
  await expect(requireTargetHost("foo.bar", { clock: new FakeClock(), lookUp: unknown }, signal)).rejects.toMatchObject(
    {
      code: "not_found",
      message: "--address is foo.bar, which has no address on this laptop: nobody knows that name",
      hint: "name a host that this laptop knows, or an IP address",
    },
  );
});

test("does not wait for ever for a resolver that says nothing", async () => {
  const clock = new FakeClock();
  const asked = requireTargetHost("foo.bar", { clock, lookUp: () => new Promise(() => undefined) }, signal);
  const refused = asked.catch((error: unknown) => (error as Error).message);
  await clock.advance(10_000);
  expect(await refused).toMatch(/^--address is foo\.bar, .* looking it up took longer than 10 s$/);
});
