import { createServer } from "node:net";
import { once } from "node:events";
import { expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { Revocation } from "#wire/agent-door.ts";
import { askToRevoke, openContainerDoor } from "./container-door.ts";
import type { ContainerDoorOptions } from "./container-door.ts";

let doors = 0;
const nameOf = (): string => `telepresence-door-test-${process.pid}-${(doors += 1)}`;
const open = (name: string, more: Partial<ContainerDoorOptions> = {}) => {
  const revoked: Revocation[] = [];
  const revoke = (revocation: Revocation): Promise<void> => Promise.resolve(void revoked.push(revocation));
  const door = openContainerDoor({ name, revoke, clock: systemClock, log: silentLogger, ...more });
  return { door, revoked };
};
const revocation = { id: "s:hello", by: "bob@desk" };

test("a program of the same container is heard, and told how it went", async () => {
  const name = nameOf();
  const { door, revoked } = open(name);
  await using _door = await door;
  expect(await askToRevoke(name, revocation, systemClock)).toEqual({});
  expect(revoked).toEqual([revocation]);
});

test("what the manager refuses is told as it was said", async () => {
  const name = nameOf();
  const refusal = new AppError("intercept_not_found", "there is none");
  await using _door = await open(name, { revoke: () => Promise.reject(refusal) }).door;
  const error = { code: "intercept_not_found", message: "there is none" };
  expect(await askToRevoke(name, revocation, systemClock)).toEqual({ error });
});

test("a program of another container is turned away before it is read", async () => {
  const name = nameOf();
  const { door, revoked } = open(name, { isInside: () => Promise.resolve(false) });
  await using _door = await door;
  expect(await askToRevoke(name, revocation, systemClock)).toMatchObject({ error: { code: "denied" } });
  expect(revoked).toEqual([]);
});

test("nonsense is answered, and revokes nothing", async () => {
  const name = nameOf();
  const { door, revoked } = open(name);
  await using _door = await door;
  const asked = await askToRevoke(name, { id: "", by: "x".repeat(10_000) }, systemClock);
  expect(asked.error).toBeDefined();
  expect(revoked).toEqual([]);
});

test("an agent whose door is taken goes on without it", async () => {
  const name = nameOf();
  const squatter = createServer().listen(`\0${name}`);
  await once(squatter, "listening");
  const { door, revoked } = open(name);
  await using _door = await door;
  expect(revoked).toEqual([]);
  squatter.close();
});

test("where no agent listens, the answer says so", async () => {
  expect(await askToRevoke(nameOf(), revocation, systemClock)).toMatchObject({ error: { code: "internal" } });
});
