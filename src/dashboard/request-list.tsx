// All requests, newest last, of which only those in sight exist in the document. It follows the newest while its end is
// in sight. One stop for the tabulator; arrows, Home and End move.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { JSX, RefObject } from "preact";
import type { ExchangeSummary } from "#wire/inspector-api.ts";
import { formatBytes, formatMs, formatTime } from "./format.ts";

/** As in app.css. */
const rowPixels = 30;
/** Rows beyond the edges, for a scroll that is quicker than a frame. */
const spare = 8;

export interface RequestListProps {
  readonly exchanges: readonly ExchangeSummary[];
  readonly chosen: number | undefined;
  readonly onChoose: (id: number | undefined) => void;
  /** Shown when there are none. */
  readonly empty: string;
}

export function RequestList({ exchanges, chosen, onChoose, empty }: RequestListProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const { scroll, onScroll } = useScroll(box, exchanges.length);
  const first = Math.max(0, Math.floor(scroll.top / rowPixels) - spare);
  const last = Math.min(exchanges.length, Math.ceil((scroll.top + scroll.height) / rowPixels) + spare);
  const at = exchanges.findIndex(({ id }) => id === chosen);
  const move = (to: number): void => {
    const index = Math.min(exchanges.length - 1, Math.max(0, to));
    onChoose(exchanges[index]?.id);
    bringIntoSight(box.current, index);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = steps[event.key];
    if (step === undefined || exchanges.length === 0) return;
    event.preventDefault();
    move(step(at, exchanges.length));
  };
  return (
    <div
      ref={box}
      class="list"
      role="listbox"
      tabIndex={0}
      aria-label="Requests"
      aria-activedescendant={at >= first && at < last ? `request-${chosen}` : undefined}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      {exchanges.length === 0 && <p class="empty">{empty}</p>}
      <div class="rows" role="presentation" style={{ height: `${exchanges.length * rowPixels}px` }}>
        {exchanges.slice(first, last).map((exchange, offset) => (
          <Row
            key={exchange.id}
            exchange={exchange}
            index={first + offset}
            count={exchanges.length}
            isChosen={exchange.id === chosen}
            onChoose={onChoose}
          />
        ))}
      </div>
    </div>
  );
}

interface Scroll {
  readonly top: number;
  readonly height: number;
}

/** What is in sight; at the end it stays at the end, however many rows come. */
function useScroll(box: RefObject<HTMLDivElement | null>, rows: number): { scroll: Scroll; onScroll: () => void } {
  const [scroll, setScroll] = useState<Scroll>({ top: 0, height: 600 });
  const follows = useRef(true);
  useLayoutEffect(() => {
    const { current } = box;
    if (current !== null && follows.current) current.scrollTop = current.scrollHeight;
  }, [box, rows]);
  useEffect(() => {
    const { current } = box;
    if (current === null) return undefined;
    const observer = new ResizeObserver(() => setScroll({ top: current.scrollTop, height: current.clientHeight }));
    observer.observe(current);
    return () => observer.disconnect();
  }, [box]);
  const onScroll = (): void => {
    if (box.current === null) return;
    const { scrollTop: top, clientHeight: height, scrollHeight } = box.current;
    follows.current = top + height > scrollHeight - rowPixels;
    setScroll({ top, height });
  };
  return { scroll, onScroll };
}

const steps: Readonly<Record<string, (at: number, count: number) => number>> = {
  ArrowDown: (at) => at + 1,
  ArrowUp: (at, count) => (at < 0 ? count : at) - 1,
  PageDown: (at) => at + 15,
  PageUp: (at) => at - 15,
  Home: () => 0,
  End: (_at, count) => count - 1,
};

function bringIntoSight(box: HTMLDivElement | null, index: number): void {
  if (box === null) return;
  const top = index * rowPixels;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + rowPixels > box.scrollTop + box.clientHeight) box.scrollTop = top + rowPixels - box.clientHeight;
}

interface RowProps {
  readonly exchange: ExchangeSummary;
  readonly index: number;
  readonly count: number;
  readonly isChosen: boolean;
  readonly onChoose: (id: number) => void;
}

function Row({ exchange, index, count, isChosen, onChoose }: RowProps): JSX.Element {
  const { id, method, target, startedAt, answerEndMs, answerBytes, podName, repeats } = exchange;
  return (
    <div
      id={`request-${id}`}
      class="row"
      role="option"
      aria-selected={isChosen}
      aria-setsize={count}
      aria-posinset={index + 1}
      style={{ top: `${index * rowPixels}px` }}
      onClick={() => onChoose(id)}
    >
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
    </div>
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
