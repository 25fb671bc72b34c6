// The inspector: what is intercepted, the search, plots, the list, and the request that was chosen. On this machine it is
// the whole page; on a team's dashboard it is opened for one intercept.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ComponentChildren, JSX, RefObject } from "preact";
import { Feed, nothingKnown, ownDaemon } from "./feed.ts";
import type { FeedSource, Snapshot } from "./feed.ts";
import { Plots } from "./plots.tsx";
import { RequestDetail } from "./request-detail.tsx";
import { RequestList } from "./request-list.tsx";
import { matches } from "./search.ts";

export function App(): JSX.Element {
  const source = useMemo(ownDaemon, []);
  return (
    <Inspector
      source={source}
      title="Requests to this laptop"
      mayAct
      mayReveal
      stranger={<Stranger />}
      lost="The daemon does not answer: run telepresence connect, then telepresence dashboard --local"
    />
  );
}

export interface InspectorProps {
  readonly source: FeedSource;
  readonly title: string;
  /** Send again, clear: the owner alone. */
  readonly mayAct: boolean;
  /** Show secrets: on this machine alone. */
  readonly mayReveal?: boolean;
  /** Instead of the page, for who may not look. */
  readonly stranger: JSX.Element;
  /** Said when nobody answers. */
  readonly lost: string;
  readonly children?: ComponentChildren;
}

export function Inspector(props: InspectorProps): JSX.Element {
  const { source, title, mayAct, mayReveal = false, stranger, lost, children } = props;
  const [snapshot, setSnapshot] = useState(nothingKnown);
  const feed = useMemo(() => new Feed(source, setSnapshot), [source]);
  useEffect(() => () => feed.close(), [feed]);
  const [query, setQuery] = useState("");
  const [chosen, choose] = useState<number>();
  const [isPaused, pause] = useState<Snapshot>();
  const search = useRef<HTMLInputElement>(null);
  const { exchanges, intercepts, link, connected } = snapshot;
  const listed = (isPaused ?? snapshot).exchanges;
  const shown = useMemo(() => listed.filter((exchange) => matches(exchange, query)), [listed, query]);
  useShortcuts({ search, close: useCallback(() => choose(undefined), []) });
  if (link === "stranger") return stranger;
  const detail = chosen === undefined ? undefined : exchanges.find(({ id }) => id === chosen);
  return (
    <div class={detail === undefined ? "page" : "page with-detail"}>
      <header>
        {children}
        <h1>{title}</h1>
        <p class="link" role="status">
          {link === "lost" ? lost : linkText(connected, intercepts.length)}
        </p>
        <Intercepts snapshot={snapshot} />
      </header>
      <Tools
        search={search}
        query={query}
        onQuery={setQuery}
        count={shown.length === listed.length ? `${listed.length}` : `${shown.length} of ${listed.length}`}
        isPaused={isPaused !== undefined}
        onPause={() => pause(isPaused === undefined ? snapshot : undefined)}
      >
        <SaveButton feed={feed} ids={shown.map(({ id }) => id)} />
        {mayAct && (
          <button type="button" onClick={() => void feed.clear()}>
            Clear
          </button>
        )}
      </Tools>
      <Plots exchanges={shown} />
      <main>
        <RequestList exchanges={shown} chosen={chosen} onChoose={choose} empty={emptyText(query, intercepts.length)} />
        {detail !== undefined && (
          <RequestDetail
            key={detail.id}
            summary={detail}
            feed={feed}
            mayAct={mayAct}
            mayReveal={mayReveal}
            onChoose={choose}
            onClose={() => choose(undefined)}
          />
        )}
      </main>
    </div>
  );
}

interface ToolsProps {
  readonly search: RefObject<HTMLInputElement | null>;
  readonly query: string;
  readonly onQuery: (query: string) => void;
  readonly count: string;
  readonly isPaused: boolean;
  readonly onPause: () => void;
  readonly children: ComponentChildren;
}

function Tools({ search, query, onQuery, count, isPaused, onPause, children }: ToolsProps): JSX.Element {
  return (
    <div class="tools" role="search">
      <input
        ref={search}
        type="search"
        aria-label="Search requests"
        placeholder="Search: words, status:5xx, method:post, -pod:…   ( / )"
        value={query}
        onInput={(event) => onQuery(event.currentTarget.value)}
      />
      <span class="count" aria-live="polite">
        {count}
      </span>
      <button type="button" aria-pressed={isPaused} onClick={onPause}>
        {isPaused ? "Go on" : "Pause"}
      </button>
      {children}
    </div>
  );
}

function linkText(connected: boolean, intercepts: number): string {
  if (!connected) return "The link to the cluster is down; requests go to the application until it is back";
  return intercepts === 0 ? "Nothing is intercepted now" : "Live";
}

function emptyText(query: string, intercepts: number): string {
  if (query !== "") return "No request matches the search.";
  return intercepts === 0
    ? "Nothing is intercepted. Run telepresence intercept, and its requests appear here."
    : "No request has come since this page was opened. HTTP/2 connections that were open before are not shown.";
}

function Intercepts({ snapshot }: { readonly snapshot: Snapshot }): JSX.Element {
  return (
    <ul class="intercepts" aria-label="Intercepts">
      {snapshot.intercepts.map(({ name, workload, namespace, state, message, ports, filter }) => (
        <li key={name} title={[...ports, message ?? ""].join("\n")}>
          <strong>{name}</strong> <span class={`state ${state}`}>{state}</span> {workload} in {namespace}
          {filter !== undefined && <code>{filter}</code>}
        </li>
      ))}
    </ul>
  );
}

function SaveButton({ feed, ids }: { readonly feed: Feed; readonly ids: readonly number[] }): JSX.Element {
  const save = async (): Promise<void> => {
    const text = JSON.stringify(await feed.har(ids, false), undefined, 2);
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const anchor = Object.assign(document.createElement("a"), { href: url, download: "telepresence.har" });
    anchor.click();
    URL.revokeObjectURL(url);
  };
  return (
    <button
      type="button"
      disabled={ids.length === 0}
      title="The requests that are shown, without secrets, as an HTTP archive"
      onClick={() => void save()}
    >
      Save as HAR
    </button>
  );
}

function Stranger(): JSX.Element {
  return (
    <main class="stranger">
      <h1>This address is not complete</h1>
      <p>
        Open the one that <code>telepresence dashboard --local</code> prints: the part behind <code>#</code> lets you
        in.
      </p>
    </main>
  );
}

interface Shortcuts {
  readonly search: { readonly current: HTMLInputElement | null };
  readonly close: () => void;
}

export function useShortcuts({ search, close }: Shortcuts): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const isTyping = event.target instanceof HTMLInputElement;
      if (event.key === "/" && !isTyping) {
        event.preventDefault();
        search.current?.focus();
      }
      if (event.key === "Escape") {
        event.preventDefault(); // Chromium would empty a search field, and tell nobody who has left it
        if (isTyping) search.current?.blur();
        else close();
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [search, close]);
}
