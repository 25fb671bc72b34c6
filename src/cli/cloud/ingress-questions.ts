// How requests come into the cluster, for a preview URL: by flags, by an answer of before, by four questions where there
// is somebody to ask, and otherwise by what was found in the cluster.
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import type { PreviewIngress } from "#wire/cloud-api.ts";
import type { FoundIngress } from "#wire/preview.ts";
import { readAnswer, rememberAnswer } from "./ingress-answers.ts";
import { isHost, readPort } from "./preview-flags.ts";
import type { GivenIngress } from "./preview-flags.ts";

export interface IngressKnown {
  /** By which answers are remembered. */
  readonly cluster: string;
  /** Best first. */
  readonly found: readonly FoundIngress[];
}

/** chosen: so many wrong answers, or an input that has ended, are no answer. */
const maxAttempts = 20;

export async function chooseIngress(
  context: CommandContext,
  given: GivenIngress,
  known: IngressKnown,
): Promise<PreviewIngress> {
  const { openCloudPlaces } = context.machine;
  const { answers } = await openCloudPlaces();
  const [best] = known.found;
  const own = known.found.find(({ source }) => source === "service");
  const remembered = await readAnswer(answers, known.cluster);
  const base = remembered ?? (best === undefined ? undefined : ingressOf(best));
  const chosen =
    complete(given) ??
    (remembered === undefined && canAsk(context) ? await ask(context, given, base) : pick(context, given, base));
  // What leads to this workload says nothing of the next one.
  const isOwn = chosen.host === own?.host && chosen.host !== remembered?.host;
  if (!isOwn && JSON.stringify(chosen) !== JSON.stringify(remembered)) {
    await rememberAnswer(answers, known.cluster, chosen).catch((error: unknown) => {
      context.output.warn(`the answers could not be kept for the next time: ${String(error)}`);
    });
  }
  return chosen;
}

/** Results for scripts are no place for questions. */
export function canAsk({ machine, output }: CommandContext): boolean {
  return machine.readAnswer !== undefined && output.mode.kind === "text";
}

function ingressOf({ source: _source, ...ingress }: FoundIngress): PreviewIngress {
  return ingress;
}

/** Where flags leave nothing to ask. */
function complete({ host, port, tls, l5host }: GivenIngress): PreviewIngress | undefined {
  if (host === undefined || port === undefined) return undefined;
  return { host, port, tls: tls ?? port === 443, ...(l5host === undefined ? {} : { l5host }) };
}

function pick({ output }: CommandContext, given: GivenIngress, base: PreviewIngress | undefined): PreviewIngress {
  const other = given.host !== undefined && given.host !== base?.host;
  if (base === undefined || other) {
    const missing =
      base === undefined && given.host === undefined ? "--ingress-host and --ingress-port" : "--ingress-port";
    throw new AppError("usage", `how requests come into the cluster is not known, expected ${missing}`, {
      hint: "name the service and the port of the cluster's ingress, as service.namespace",
    });
  }
  const chosen = { ...base, ...given };
  output.line(`Using ingress ${describeIngress(chosen)}; --ingress-host, -port, -tls and -l5 name another`);
  return chosen;
}

export function describeIngress({ host, port, tls, l5host }: PreviewIngress): string {
  const asked = l5host === undefined || l5host === host ? "" : `, asked for ${l5host}`;
  return `${host}:${port}${tls ? " (TLS)" : ""}${asked}`;
}

async function ask(
  context: CommandContext,
  given: GivenIngress,
  base: PreviewIngress | undefined,
): Promise<PreviewIngress> {
  const { output } = context;
  output.clearProgress();
  output.announce(
    `To create a preview URL, Telepresence has to know how requests come into the cluster.\n` +
      `Please ${base === undefined ? "say which ingress to use" : "confirm the ingress to use"}.\n`,
  );
  const settle = async <T extends string | number>(answer: T | undefined, asked: Question<T>): Promise<T> =>
    answer ?? (await question(context, asked));
  const host = await settle(given.host, questions.host(base?.host));
  const same = host === base?.host ? base : undefined;
  const port = await settle(given.port, questions.port(same?.port));
  const tls = given.tls ?? (await question(context, questions.tls(same?.tls ?? port === 443))) === "y";
  const l5host = await settle(given.l5host, questions.l5host(same?.l5host ?? host));
  return { host, port, tls, ...(l5host === host ? {} : { l5host }) };
}

const hostIn = (text: string): string | undefined => (isHost(text) ? text : undefined);

const questions = {
  host: (fallback: string | undefined): Question<string> => ({
    text: "1/4: What is the address of the ingress? An IP address or a DNS name in the cluster, as a rule service.namespace.",
    fallback,
    read: hostIn,
    expected: "an IP address or a DNS name",
  }),
  port: (fallback: number | undefined): Question<number> => ({
    text: "2/4: What is its TCP port number?",
    fallback,
    read: readPort,
    expected: "a number from 1 to 65535",
  }),
  tls: (fallback: boolean): Question<string> => ({
    text: "3/4: Does that port speak TLS, as opposed to clear text? (y/n)",
    fallback: fallback ? "y" : "n",
    read: (text) => ({ y: "y", yes: "y", n: "n", no: "n" })[text.toLowerCase()],
    expected: "y or n",
  }),
  l5host: (fallback: string): Question<string> => ({
    text: "4/4: Which host name does it expect, in TLS and in the Host header, if it is another one?",
    fallback,
    read: hostIn,
    expected: "a host name",
  }),
};

interface Question<T> {
  readonly text: string;
  /** What an empty answer means; none when left out. */
  readonly fallback: T | undefined;
  readonly read: (text: string) => T | undefined;
  readonly expected: string;
}

async function question<T extends string | number>(
  { machine, output, interrupts }: CommandContext,
  { text, fallback, read, expected }: Question<T>,
): Promise<T> {
  const shown = fallback === undefined ? "[no default]:" : `[default: ${fallback}]:`;
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    output.ask(`${text}\n\n    ${shown}`);
    const typed = ((await machine.readAnswer?.(interrupts.signal)) ?? "").trim();
    const answer = typed === "" ? fallback : read(typed);
    output.announce("");
    if (answer !== undefined) return answer;
    output.announce(`Please answer with ${expected}.`);
  }
  throw new AppError("usage", `nobody has answered with ${expected}`, {
    hint: "--ingress-host, --ingress-port, --ingress-tls and --ingress-l5 answer the questions",
  });
}
