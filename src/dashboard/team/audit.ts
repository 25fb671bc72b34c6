// The audit log, read from its newest end as far as somebody scrolls.
import { useEffect, useRef, useState } from "preact/hooks";
import type { AuditEntryView, AuditView } from "#wire/dashboard-api.ts";
import type { Board } from "./board.ts";
import type { Row } from "./views.ts";

export interface AuditLog {
  readonly rows: readonly Row[];
  readonly readMore: () => void;
}

/** `revision` is the snapshot's: what changes there may have made an entry. */
export function useAuditLog(board: Board, isShown: boolean, revision: string | undefined): AuditLog {
  const [entries, setEntries] = useState<readonly AuditEntryView[]>([]);
  const next = useRef<string | undefined>(undefined);
  const isReading = useRef(false);
  const read = async (before: string | undefined): Promise<void> => {
    if (isReading.current) return;
    isReading.current = true;
    try {
      const page = (await board.read(`/api/audit${before === undefined ? "" : `?before=${before}`}`)) as AuditView;
      setEntries((known) => merge(known, page.entries));
      if (before !== undefined || next.current === undefined) next.current = page.next;
    } catch {
      // asked again at the next change, or scroll
    } finally {
      isReading.current = false;
    }
  };
  useEffect(() => {
    if (isShown) void read(undefined);
  }, [isShown, revision]);
  const rows = entries.map((entry): Row => ({ kind: "audit", id: entry.id, entry }));
  return { rows, readMore: () => void (next.current !== undefined && read(next.current)) };
}

/** Newest first, each once. */
function merge(known: readonly AuditEntryView[], more: readonly AuditEntryView[]): readonly AuditEntryView[] {
  const all = new Map([...known, ...more].map((entry) => [entry.id, entry]));
  return [...all.values()].sort((a, b) => b.atMs - a.atMs || (a.id < b.id ? 1 : -1));
}
