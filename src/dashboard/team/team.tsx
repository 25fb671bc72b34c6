// The whole page: where one is, the views, plots, a list, and what was chosen in it; or the inspector of one intercept.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { DashboardSnapshot, TrafficView } from "#wire/dashboard-api.ts";
import { useShortcuts } from "#dashboard/app.tsx";
import { formatMs } from "#dashboard/format.ts";
import { Plot } from "#dashboard/plots.tsx";
import { VirtualList } from "#dashboard/virtual-list.tsx";
import { useAuditLog } from "./audit.ts";
import { Board, nothingYet } from "./board.ts";
import { Detail } from "./details.tsx";
import { EmptyText } from "./empty-texts.tsx";
import { SharedInspector } from "./shared-inspector.tsx";
import { RowLine, rowClasses } from "./rows.tsx";
import { findRows, rowsOf, viewNames } from "./views.ts";
import type { ViewName } from "./views.ts";

export function Team(): JSX.Element {
  const [known, setKnown] = useState(nothingYet);
  const board = useMemo(() => new Board(setKnown), []);
  useEffect(() => () => board.close(), [board]);
  const place = useHash();
  const { snapshot } = known;
  if (snapshot === undefined) {
    return (
      <main class="stranger">
        <h1>Dashboard</h1>
        <p role="status">{known.isLost ? "The server does not answer." : "Loading…"}</p>
      </main>
    );
  }
  const [, cluster, intercept] = /^inspect\/([^/]+)\/([^/]+)$/.exec(place) ?? [];
  if (cluster !== undefined && intercept !== undefined) {
    return (
      <SharedInspector
        key={place}
        board={board}
        snapshot={snapshot}
        cluster={decodeURIComponent(cluster)}
        intercept={decodeURIComponent(intercept)}
      />
    );
  }
  const view = viewNames.find((name) => name === place) ?? "intercepts";
  return <Overview key={view} view={view} board={board} snapshot={snapshot} isLost={known.isLost} />;
}

function useHash(): string {
  const [hash, setHash] = useState(location.hash.slice(1));
  useEffect(() => {
    const onChange = (): void => setHash(location.hash.slice(1));
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return hash;
}

interface OverviewProps {
  readonly view: ViewName;
  readonly board: Board;
  readonly snapshot: DashboardSnapshot;
  readonly isLost: boolean;
}

function Overview({ view, board, snapshot, isLost }: OverviewProps): JSX.Element {
  const [query, setQuery] = useState("");
  const [chosen, choose] = useState<string>();
  const search = useRef<HTMLInputElement>(null);
  const audit = useAuditLog(board, view === "audit", snapshot.revision);
  const rows = view === "audit" ? audit.rows : rowsOf(view, snapshot);
  const shown = useMemo(() => findRows(rows, query), [rows, query]);
  useShortcuts({ search, close: useCallback(() => choose(undefined), []) });
  useViewKeys();
  const row = chosen === undefined ? undefined : rows.find(({ id }) => id === chosen);
  return (
    <div class={row === undefined ? "page" : "page with-detail"}>
      <header>
        <h1>Dashboard</h1>
        <p class="link" role="status">
          {isLost ? "The server does not answer; what is shown may be old" : `Live, as ${snapshot.me.name}`}
        </p>
        <div class="links">
          <a href="/">Account</a>
          {snapshot.me.admin && <a href="/people">Manage people</a>}
        </div>
      </header>
      <Views view={view} snapshot={snapshot} />
      <div class="tools" role="search">
        <input
          ref={search}
          type="search"
          aria-label={`Search ${view}`}
          placeholder="Search   ( / )"
          value={query}
          onInput={(event) => setQuery(event.currentTarget.value)}
        />
        <span class="count" aria-live="polite">
          {shown.length === rows.length ? `${rows.length}` : `${shown.length} of ${rows.length}`}
        </span>
      </div>
      <TrafficPlots traffic={snapshot.traffic} />
      <main>
        <VirtualList
          items={shown}
          label={viewTitles[view]}
          chosen={chosen}
          onChoose={choose}
          empty={<EmptyText view={view} isSearched={query !== ""} />}
          rowClass={rowClasses[view]}
          row={(item) => <RowLine row={item} />}
          {...(view === "audit" ? { onEnd: audit.readMore } : {})}
        />
        {row !== undefined && (
          <Detail key={row.id} row={row} board={board} snapshot={snapshot} onClose={() => choose(undefined)} />
        )}
      </main>
    </div>
  );
}

const viewTitles: Readonly<Record<ViewName, string>> = {
  intercepts: "Intercepts",
  previews: "Previews",
  clusters: "Clusters",
  people: "People",
  audit: "Audit log",
};

function Views({ view, snapshot }: { readonly view: ViewName; readonly snapshot: DashboardSnapshot }): JSX.Element {
  return (
    <nav class="views" aria-label="Views">
      {viewNames.map((name, at) => (
        <button
          key={name}
          type="button"
          aria-current={name === view ? "page" : undefined}
          title={`Key ${at + 1}`}
          onClick={() => location.assign(`#${name}`)}
        >
          {viewTitles[name]}
          {name !== "audit" && <span class="count"> {rowsOf(name, snapshot).length}</span>}
        </button>
      ))}
    </nav>
  );
}

/** 1 to 5, where nobody types. */
function useViewKeys(): void {
  useEffect(() => {
    const onKey = ({ key, target, ctrlKey, altKey, metaKey }: KeyboardEvent): void => {
      const typing = target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
      const name = viewNames[Number(key) - 1];
      if (name !== undefined && !typing && !ctrlKey && !altKey && !metaKey) location.assign(`#${name}`);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
}

function TrafficPlots({ traffic: { steps, stepMs } }: { readonly traffic: TrafficView }): JSX.Element {
  const total = steps.reduce((sum, { count }) => sum + count, 0);
  const last = steps.findLast(({ count }) => count > 0);
  return (
    <section class="plots" aria-label="Requests to previews">
      <Plot
        name={`Requests to previews in each ${stepMs / 1000} seconds`}
        latest={`${total} in the last ${Math.round((steps.length * stepMs) / 60_000)} minutes`}
        values={steps.map(({ count }) => count)}
        bars
      />
      <Plot
        name="Time of 95 % of them"
        latest={last === undefined ? "none yet" : `${formatMs(last.mostMs)}, half ${formatMs(last.halfMs)}`}
        values={steps.map(({ mostMs }) => mostMs)}
      />
    </section>
  );
}
