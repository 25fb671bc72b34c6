// Whether a traffic-manager answers, asked at its pod. Kubelet looks once a second whether a container runs, and asks once a
// second whether it is ready, for the first time before Node is up: who waits for its word waits most of a second longer.
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import type { Kube } from "#kube/client.ts";
import type { Pod } from "#kube/objects.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import { managerHealthPort } from "#wire/manager-api.ts";

/** chosen: between two questions; one of them; how many, after which kubelet's answer is waited for. */
const [knockMs, answerMs, maxKnocks] = [100, 1000, 20];

export class Knocks implements AsyncDisposable {
  /** The first pod whose manager answered before kubelet knew. Never rejects. */
  readonly answered: Promise<Pod>;
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #resolve: (pod: Pod) => void;
  readonly #over = new AbortController();
  readonly #running = new Map<string, Promise<void>>();

  constructor(kube: Kube, namespace: string) {
    this.#kube = kube;
    this.#namespace = namespace;
    const { promise, resolve } = Promise.withResolvers<Pod>();
    this.answered = promise;
    this.#resolve = resolve;
  }

  /** Those of them that have a node are asked, each as often as is worth it, and again when kubelet says that it runs. */
  ask(pods: readonly Pod[]): void {
    for (const pod of pods) {
      const key = `${pod.metadata.uid} ${isRunning(pod)}`;
      if (pod.spec.nodeName !== undefined && !this.#running.has(key)) this.#running.set(key, this.#knock(pod));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await Promise.all(this.#running.values());
  }

  async #knock(pod: Pod): Promise<void> {
    const { signal } = this.#over;
    for (let count = 0; count < maxKnocks && !signal.aborted; count += 1) {
      if (await this.#answers(pod)) return this.#resolve(pod);
      await this.#kube.clock.sleep(knockMs, signal).catch(() => undefined); // the loop's condition ends it
    }
  }

  async #answers({ metadata: { name = "" } }: Pod): Promise<boolean> {
    using limit = deadline(this.#kube.clock, answerMs, `the answer of pod ${name}`, this.#over.signal);
    const { signal } = limit;
    let stream: Duplex | undefined;
    try {
      const target = { namespace: this.#namespace, pod: name, port: managerHealthPort, signal };
      stream = await openPortForward(this.#kube, target);
      stream.on("error", () => undefined); // `once` hears it, but a stream that is given up has nobody else
      stream.write("GET /readyz HTTP/1.0\r\n\r\n");
      const [answer] = (await Promise.race([once(stream, "data", { signal }), ended(stream)])) as [Buffer?];
      return answer !== undefined && /^HTTP\/1\.[01] 200 /.test(answer.toString("latin1"));
    } catch {
      return false; // nobody listens yet, or this user may not; kubelet's word is waited for as well
    } finally {
      stream?.destroy();
    }
  }
}

async function ended(stream: Duplex): Promise<[]> {
  await once(stream, "close");
  return [];
}

function isRunning({ status }: Pod): boolean {
  return status?.containerStatuses?.some(({ state }) => state?.running !== undefined) === true;
}
