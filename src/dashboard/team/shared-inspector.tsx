// The inspector of one intercept, asked by way of the cloud server, its cluster's tunnel and the owner's laptop.
import { useMemo } from "preact/hooks";
import type { JSX } from "preact";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";
import { Inspector } from "#dashboard/app.tsx";
import type { FeedSource } from "#dashboard/feed.ts";
import type { Board } from "./board.ts";

interface SharedInspectorProps {
  readonly board: Board;
  readonly snapshot: DashboardSnapshot;
  readonly cluster: string;
  readonly intercept: string;
}

export function SharedInspector({ board, snapshot, cluster, intercept }: SharedInspectorProps): JSX.Element {
  const source = useMemo((): FeedSource => {
    const at = `/api/clusters/${encodeURIComponent(cluster)}/intercepts/${encodeURIComponent(intercept)}/inspect/`;
    return { base: at, headers: () => ({ "x-csrf-token": board.csrf }) };
  }, [board, cluster, intercept]);
  const told = snapshot.clusters.find(({ id }) => id === cluster)?.intercepts.find(({ id }) => id === intercept);
  const title = told === undefined ? "This intercept has ended" : `Requests to ${told.name} of ${told.client}`;
  return (
    <Inspector
      source={source}
      title={title}
      mayAct={told?.own === true}
      stranger={
        <main class="stranger">
          <h1>{title}</h1>
          <p>Its owner does not let others look, or you are not in the team of its cluster.</p>
          <Back />
        </main>
      }
      lost="The laptop does not answer: it is away, or its owner has not allowed others to look"
    >
      <Back />
    </Inspector>
  );
}

function Back(): JSX.Element {
  return <a href="#intercepts">Dashboard</a>;
}
