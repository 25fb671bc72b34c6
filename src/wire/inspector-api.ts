// The inspector's page ↔ daemon: JSON over HTTP on the loopback. Types alone: the page holds no schemas, and what it
// sends is a few numbers and words in paths, which the daemon checks by itself. A cloud server asks the same for team mates.

/** Set by a cloud server on each request that it brings: `owner`, or `team` for others of the team. */
export const viewerHeader = "x-telepresence-viewer";

export interface ExchangeSummary {
  readonly id: number;
  /** Grows with each change of the exchange: who has seen this one need not ask for it again. */
  readonly revision: number;
  readonly intercept: string;
  readonly podName: string;
  readonly caller: string;
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly version: string;
  readonly status?: number;
  /** Of gRPC, from the trailers. */
  readonly grpcStatus?: number;
  readonly state: "open" | "done" | "cut" | "unread";
  /** Wall-clock milliseconds. */
  readonly startedAt: number;
  /** Milliseconds since then. */
  readonly requestEndMs?: number;
  readonly answerStartMs?: number;
  readonly answerEndMs?: number;
  readonly requestBytes: number;
  readonly answerBytes: number;
  readonly contentType?: string;
  /** The exchange that this one repeats, and who answered it. */
  readonly repeats?: number;
  readonly answeredBy: "laptop" | "pod";
}

export interface HeaderView {
  readonly name: string;
  readonly value: string;
  readonly hidden?: true;
}

export interface BodyView {
  /** As it was sent. */
  readonly bytes: number;
  /** What is shown is only its beginning. */
  readonly cut: boolean;
  /** Its content coding, which was undone for `text`. */
  readonly coding?: string;
  /** Absent for what is no text. */
  readonly text?: string;
  /** Of what is no text, its beginning in base 64. */
  readonly base64?: string;
  /** Something in it was hidden. */
  readonly hidden: boolean;
}

export interface ExchangeView extends ExchangeSummary {
  readonly target: string;
  readonly processAddress: string;
  /** There and back between the cluster and the laptop when the request came, milliseconds. */
  readonly linkMs?: number;
  readonly requestHeaders: readonly HeaderView[];
  readonly requestBody: BodyView;
  readonly answerHeaders: readonly HeaderView[];
  readonly answerTrailers: readonly HeaderView[];
  readonly answerBody: BodyView;
}

/** One line of the live stream. */
export type InspectorEvent =
  | { readonly kind: "exchanges"; readonly changed: readonly ExchangeSummary[]; readonly oldest: number }
  | { readonly kind: "intercepts"; readonly intercepts: readonly InspectedIntercept[]; readonly connected: boolean };

export interface InspectedIntercept {
  readonly name: string;
  readonly workload: string;
  readonly namespace: string;
  readonly state: string;
  readonly message?: string;
  readonly ports: readonly string[];
  readonly filter?: string;
}
