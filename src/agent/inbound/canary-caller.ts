// A caller that may be a canary (agent/canary.ts): answered or let go before anybody else hears of it. Every other
// caller, known by its address, is not even looked at; one from the manager's address waits until it has spoken.
// @from agent/inbound/capture.ts
import type { Socket } from "node:net";
import type { Canary } from "#agent/canary.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { FirstMove } from "./first-move.ts";
import { plainAddress } from "./app-addresses.ts";

/** chosen: a canary speaks, or leaves, as soon as it is connected: one round trip between laptop and manager. */
const waitMs = 1000;

/** True when it was one, and is over. */
export async function takeCanary(caller: Socket, first: FirstMove, port: AgentPort, canary: Canary): Promise<boolean> {
  canary.count(port);
  const address = plainAddress(caller.remoteAddress ?? "");
  const mayBe = port.http === true ? canary.mayComeFrom(address) : canary.isExpectedFrom(address);
  if (!mayBe) return false;
  await first.protocol(undefined, waitMs);
  if (first.bytes.length > 0) return answerCanary(caller, first.bytes, canary);
  if (!caller.readableEnded && !caller.destroyed) return false;
  caller.destroySoon();
  return true;
}

/** True when these bytes are a canary of HTTP, which is answered. */
export function answerCanary(caller: Socket, bytes: Buffer, canary: Canary): boolean {
  const answer = canary.answer(bytes);
  if (answer === undefined) return false;
  caller.end(answer);
  caller.resume(); // its end is to be heard
  return true;
}
