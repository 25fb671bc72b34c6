// What the agent knows of canaries: connections by which a laptop tries whether callers reach this agent. They are
// answered or dropped here, so that neither the application nor the laptop's process ever hears of them.
// Invariant: nobody but a caller with a manager's address waits for a canary, and only while one is expected.
import type { Clock } from "#base/clock.ts";
import { isProven, prove } from "#tunnel/proof.ts";
import { isSamePort, type AppPort } from "#wire/agent-api.ts";
import { answeredText, askedText, decodeCanaryRequest, encodeCanaryAnswer } from "#wire/canary.ts";
import type { ResultOf } from "#wire/rpc.ts";
import type { introductionApi } from "#wire/introduction-api.ts";

/** chosen: laptops whose canaries are known; each introduces itself again when its link was lost. */
const maxLaptops = 64;
/** chosen: a laptop sends them at once. */
const expectMs = 5000;

type Counts = ResultOf<typeof introductionApi, "canary.expect">["ports"];

interface Laptop {
  readonly secret: string;
  /** Where its canaries come from. */
  readonly managerIps: readonly string[];
}

export class Canary {
  readonly #podUid: string;
  readonly #clock: Clock;
  readonly #ports: readonly { readonly port: AppPort; connections: number }[];
  /** By session, the latest last. */
  readonly #laptops = new Map<string, Laptop>();
  #expectedUntilMs = -Infinity;

  constructor(ports: readonly AppPort[], podUid: string, clock: Clock) {
    this.#ports = ports.map((port) => ({ port, connections: 0 }));
    this.#podUid = podUid;
    this.#clock = clock;
  }

  learn(sessionId: string, laptop: Laptop): void {
    this.#laptops.delete(sessionId);
    this.#laptops.set(sessionId, laptop);
    const [oldest] = this.#laptops.keys();
    if (this.#laptops.size > maxLaptops && oldest !== undefined) this.#laptops.delete(oldest);
  }

  /** The answer to a canary that some laptop sent; undefined of any other request. */
  answer(bytes: Buffer): Buffer | undefined {
    const request = decodeCanaryRequest(bytes);
    if (request === undefined) return undefined;
    const { nonce, proof } = request;
    const asks = ({ secret }: Laptop): boolean => isProven(secret, askedText(nonce), proof);
    const laptop = [...this.#laptops.values()].find(asks);
    if (laptop === undefined) return undefined;
    const podUid = this.#podUid;
    return encodeCanaryAnswer({ podUid, proof: prove(laptop.secret, answeredText(nonce, podUid)) });
  }

  /** From now on silent ones are waited for; gives the connections that each port has had. */
  expect(): Counts {
    this.#expectedUntilMs = this.#clock.now() + expectMs;
    return this.#ports.map(({ port, connections }) => ({ ...keyOf(port), connections }));
  }

  /** A connection came to the port. */
  count(port: AppPort): void {
    const entry = this.#ports.find((one) => isSamePort(one.port, port));
    if (entry !== undefined) entry.connections += 1;
  }

  /** Whether a caller may be a canary of HTTP: its request must be seen before anybody else hears of it. */
  mayComeFrom(address: string): boolean {
    return [...this.#laptops.values()].some(({ managerIps }) => managerIps.includes(address));
  }
  /** Whether a caller may be one that says nothing. */
  isExpectedFrom(address: string): boolean {
    return this.#clock.now() < this.#expectedUntilMs && this.mayComeFrom(address);
  }
}

function keyOf({ containerPort, protocol }: AppPort): AppPort {
  return { containerPort, protocol };
}
