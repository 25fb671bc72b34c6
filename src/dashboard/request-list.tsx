// All requests, newest last; the list follows the newest while its end is in sight.
import type { JSX } from "preact";
import type { ExchangeSummary } from "#wire/inspector-api.ts";
import { formatBytes, formatMs, formatTime } from "./format.ts";
import { VirtualList } from "./virtual-list.tsx";

export interface RequestListProps {
  readonly exchanges: readonly ExchangeSummary[];
  readonly chosen: number | undefined;
  readonly onChoose: (id: number | undefined) => void;
  /** Shown when there are none. */
  readonly empty: string;
}

export function RequestList({ exchanges, chosen, onChoose, empty }: RequestListProps): JSX.Element {
  return (
    <VirtualList
      items={exchanges}
      label="Requests"
      chosen={chosen}
      onChoose={onChoose}
      empty={empty}
      followsEnd
      row={(exchange) => <Row exchange={exchange} />}
    />
  );
}

function Row({ exchange }: { readonly exchange: ExchangeSummary }): JSX.Element {
  const { method, target, startedAt, answerEndMs, answerBytes, podName, repeats } = exchange;
  return (
    <>
      <span class="time">{formatTime(startedAt)}</span>
      <span class="method">{method}</span>
      <span class={`status ${statusClass(exchange)}`}>{statusText(exchange)}</span>
      <span class="target">
        {repeats !== undefined && <span class="again">again, {exchange.answeredBy}: </span>}
        {target}
      </span>
      <span class="took">{formatMs(answerEndMs)}</span>
      <span class="size">{formatBytes(answerBytes)}</span>
      <span class="pod">{podName}</span>
    </>
  );
}

export function statusText({ status, state, grpcStatus }: ExchangeSummary): string {
  const text = status === undefined ? { open: "…", cut: "cut", unread: "?", done: "" }[state] : String(status);
  const cut = status !== undefined && state === "cut" ? " cut" : "";
  return grpcStatus === undefined ? text + cut : `${text} g${grpcStatus}`;
}

export function statusClass({ status, state, grpcStatus }: ExchangeSummary): string {
  if (state === "cut" || (grpcStatus ?? 0) > 0) return "bad";
  if (status === undefined) return "open";
  if (status >= 500) return "bad";
  return status >= 400 ? "warn" : "good";
}
