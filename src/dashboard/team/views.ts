// What the lists show: rows made of the server's answer, and which of them a search finds.
import type { ClusterView, PreviewView } from "#wire/cloud-api.ts";
import type { AuditEntryView, DashboardPerson, DashboardSnapshot } from "#wire/dashboard-api.ts";

export const viewNames = ["intercepts", "previews", "clusters", "people", "audit"] as const;
export type ViewName = (typeof viewNames)[number];

/** An intercept as the server tells of it. */
type ToldIntercept = ClusterView["intercepts"][number];

export type Row =
  | {
      readonly kind: "intercepts";
      readonly id: string;
      readonly cluster: ClusterView;
      readonly intercept: ToldIntercept;
    }
  | { readonly kind: "previews"; readonly id: string; readonly preview: PreviewView }
  | { readonly kind: "clusters"; readonly id: string; readonly cluster: ClusterView }
  | { readonly kind: "people"; readonly id: string; readonly person: DashboardPerson }
  | { readonly kind: "audit"; readonly id: string; readonly entry: AuditEntryView };

export function rowsOf(view: Exclude<ViewName, "audit">, snapshot: DashboardSnapshot): readonly Row[] {
  const { clusters, previews, people } = snapshot;
  switch (view) {
    case "intercepts":
      return clusters.flatMap((cluster) =>
        cluster.intercepts.map((intercept) => {
          return { kind: view, id: interceptRowId(cluster.id, intercept.id), cluster, intercept };
        }),
      );
    case "previews":
      return previews.map((preview) => ({ kind: view, id: preview.id, preview }));
    case "clusters":
      return clusters.map((cluster) => ({ kind: view, id: cluster.id, cluster }));
    case "people":
      return people.map((person) => ({ kind: view, id: person.id, person }));
  }
}

export const interceptRowId = (cluster: string, intercept: string): string => `${cluster} ${intercept}`;

/** All words must occur somewhere in the row. */
export function findRows(rows: readonly Row[], query: string): readonly Row[] {
  const words = query
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "");
  if (words.length === 0) return rows;
  return rows.filter((row) => {
    const text = textOf(row);
    return words.every((word) => text.includes(word));
  });
}

function textOf(row: Row): string {
  return partsOf(row).join(" ").toLowerCase();
}

function partsOf(row: Row): readonly (string | undefined)[] {
  switch (row.kind) {
    case "intercepts": {
      const { name, workload, client, state, filter } = row.intercept;
      return [name, workload.name, workload.namespace, client, state, filter, row.cluster.name];
    }
    case "previews": {
      const { host, workload, cluster, owner, access, state, intercept } = row.preview;
      return [host, workload.name, workload.namespace, cluster, owner.name, access, state, intercept];
    }
    case "clusters":
      return [row.cluster.name, row.cluster.team.name, row.cluster.live ? "live" : "away"];
    case "people":
      return [row.person.name, ...row.person.teams.map(({ name }) => name), row.person.admin ? "administrator" : ""];
    case "audit":
      return [row.entry.who, row.entry.action, row.entry.subject];
  }
}
