// A list of any length, of which only the rows in sight exist in the document. One stop for the tabulator; arrows, Home
// and End move.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren, JSX, RefObject } from "preact";

/** As in app.css. */
const rowPixels = 30;
/** Rows beyond the edges, for a scroll that is quicker than a frame. */
const spare = 8;

type Id = string | number;

export interface VirtualListProps<Item extends { readonly id: Id }> {
  readonly items: readonly Item[];
  readonly label: string;
  readonly chosen: Id | undefined;
  readonly onChoose: (id: Item["id"] | undefined) => void;
  /** Shown when there are none. */
  readonly empty: ComponentChildren;
  /** Of a row, beside `row`. */
  readonly rowClass?: string;
  readonly row: (item: Item) => ComponentChildren;
  /** At the end it stays at the end, however many rows come. */
  readonly followsEnd?: boolean;
  /** The end is in sight. */
  readonly onEnd?: () => void;
}

export function VirtualList<Item extends { readonly id: Id }>(props: VirtualListProps<Item>): JSX.Element {
  const { items, label, chosen, onChoose, empty, row, rowClass = "", followsEnd = false, onEnd } = props;
  const box = useRef<HTMLDivElement>(null);
  const { scroll, onScroll } = useScroll(box, items.length, followsEnd);
  const first = Math.max(0, Math.floor(scroll.top / rowPixels) - spare);
  const last = Math.min(items.length, Math.ceil((scroll.top + scroll.height) / rowPixels) + spare);
  const at = items.findIndex(({ id }) => id === chosen);
  useEffect(() => {
    if (last === items.length) onEnd?.();
  }, [last, items.length]);
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = steps[event.key];
    if (step === undefined || items.length === 0) return;
    event.preventDefault();
    const index = Math.min(items.length - 1, Math.max(0, step(at, items.length)));
    onChoose(items[index]?.id);
    bringIntoSight(box.current, index);
  };
  return (
    <div
      ref={box}
      class="list"
      role="listbox"
      tabIndex={0}
      aria-label={label}
      aria-activedescendant={at >= first && at < last ? `row-${at}` : undefined}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      {items.length === 0 && <div class="empty">{empty}</div>}
      <div class="rows" role="presentation" style={{ height: `${items.length * rowPixels}px` }}>
        {items.slice(first, last).map((item, offset) => (
          <div
            key={item.id}
            id={`row-${first + offset}`}
            class={`row ${rowClass}`}
            role="option"
            aria-selected={item.id === chosen}
            aria-setsize={items.length}
            aria-posinset={first + offset + 1}
            style={{ top: `${(first + offset) * rowPixels}px` }}
            onClick={() => onChoose(item.id)}
          >
            {row(item)}
          </div>
        ))}
      </div>
    </div>
  );
}

interface Scroll {
  readonly top: number;
  readonly height: number;
}

function useScroll(
  box: RefObject<HTMLDivElement | null>,
  rows: number,
  followsEnd: boolean,
): { scroll: Scroll; onScroll: () => void } {
  const [scroll, setScroll] = useState<Scroll>({ top: 0, height: 600 });
  const follows = useRef(followsEnd);
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
    follows.current = followsEnd && top + height > scrollHeight - rowPixels;
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
