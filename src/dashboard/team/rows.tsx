// One line for each thing of a list.
import type { JSX } from "preact";
import type { Row } from "./views.ts";

export const rowClasses: Readonly<Record<Row["kind"], string>> = {
  intercepts: "intercept",
  previews: "preview",
  clusters: "cluster",
  people: "person",
  audit: "entry",
};

export function RowLine({ row }: { readonly row: Row }): JSX.Element {
  switch (row.kind) {
    case "intercepts":
      return <InterceptLine row={row} />;
    case "previews":
      return <PreviewLine row={row} />;
    case "clusters":
      return <ClusterLine row={row} />;
    case "people":
      return <PersonLine row={row} />;
    case "audit":
      return <EntryLine row={row} />;
  }
}

interface LineProps<Kind extends Row["kind"]> {
  readonly row: Extract<Row, { kind: Kind }>;
}

function InterceptLine({ row }: LineProps<"intercepts">): JSX.Element {
  const { name, state, workload, client } = row.intercept;
  return (
    <>
      <span>{name}</span>
      <span class={`state ${state}`}>{state}</span>
      <span class="wide quiet">
        {workload.name} in {workload.namespace}
      </span>
      <span>{client}</span>
      <span class="wide quiet">{row.cluster.name}</span>
    </>
  );
}

function PreviewLine({ row }: LineProps<"previews">): JSX.Element {
  const { host, state, access, owner, workload, visitors } = row.preview;
  return (
    <>
      <span>{host}</span>
      <span class={`state ${state}`}>{state}</span>
      <span class={`state ${access}`}>{access}</span>
      <span class="wide quiet">{owner.name}</span>
      <span class="wide quiet">{workload.name}</span>
      <span class="wide quiet">{countText(visitors.length, "visitor")}</span>
    </>
  );
}

function ClusterLine({ row }: LineProps<"clusters">): JSX.Element {
  const { name, live, team, intercepts, more, managerVersion } = row.cluster;
  return (
    <>
      <span>{name}</span>
      <span class={`state ${live ? "live" : "away"}`}>{live ? "live" : "away"}</span>
      <span class="wide quiet">{team.name}</span>
      <span>{countText(intercepts.length + more, "intercept")}</span>
      <span class="wide quiet">{managerVersion}</span>
    </>
  );
}

function PersonLine({ row }: LineProps<"people">): JSX.Element {
  const { name, admin, teams } = row.person;
  return (
    <>
      <span>{name}</span>
      <span class="wide quiet">{admin ? "administrator" : ""}</span>
      <span class="quiet">{teams.map((team) => team.name).join(", ")}</span>
    </>
  );
}

function EntryLine({ row }: LineProps<"audit">): JSX.Element {
  const { atMs, who, action, subject } = row.entry;
  return (
    <>
      <span class="quiet">{dateText(atMs)}</span>
      <span class="wide">{who}</span>
      <span class="wide">{action}</span>
      <span>{subject}</span>
    </>
  );
}

export function countText(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** In the reader's own time zone. */
export function dateText(ms: number): string {
  return new Date(ms).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium", hour12: false });
}
