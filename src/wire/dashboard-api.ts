// The dashboard's page ↔ cloud server: JSON over HTTP, by the browser's cookie. Types alone, as in inspector-api.ts; what
// the page changes goes by the routes of cloud-api.ts with its form token in `x-csrf-token`.
import type { CloudTeam, ClusterView, PreviewView } from "./cloud-api.ts";

/** All that the page shows; asked for again with `after`, which waits until something is different. */
export interface DashboardSnapshot {
  readonly revision: string;
  readonly csrf: string;
  readonly me: { readonly id: string; readonly name: string; readonly admin: boolean };
  readonly clusters: readonly ClusterView[];
  readonly previews: readonly PreviewView[];
  readonly people: readonly DashboardPerson[];
  readonly traffic: TrafficView;
}

export interface DashboardPerson {
  readonly id: string;
  readonly name: string;
  readonly admin: boolean;
  readonly teams: readonly CloudTeam[];
}

/** Requests to previews, step by step, the last one being now. */
export interface TrafficView {
  readonly stepMs: number;
  readonly steps: readonly TrafficStep[];
}

export interface TrafficStep {
  readonly count: number;
  /** Half, and 95 %, were answered within; absent without a request. */
  readonly halfMs?: number;
  readonly mostMs?: number;
}

export interface AuditView {
  readonly entries: readonly AuditEntryView[];
  /** For what is older. */
  readonly next?: string;
}

export interface AuditEntryView {
  readonly id: string;
  readonly atMs: number;
  readonly who: string;
  readonly action: string;
  readonly subject: string;
}
