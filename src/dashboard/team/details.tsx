// The chosen thing: what is known of it, and what may be done with it. The server decides; what it refuses is said here.
import type { JSX } from "preact";
import { Facts, Notice, useAction } from "./detail-parts.tsx";
import type { DetailProps } from "./detail-parts.tsx";
import { PreviewDetail } from "./preview-detail.tsx";
import { countText, dateText } from "./rows.tsx";
import type { Row } from "./views.ts";

export function Detail({ onClose, ...props }: DetailProps & { readonly onClose: () => void }): JSX.Element {
  return (
    <section class="detail" aria-label="What was chosen">
      <div class="detail-head">
        <h2>{titleOf(props.row)}</h2>
        <button type="button" class="close" aria-label="Close" onClick={onClose}>
          ✕
        </button>
      </div>
      {contentOf(props)}
    </section>
  );
}

function contentOf({ row, ...rest }: DetailProps): JSX.Element {
  switch (row.kind) {
    case "intercepts":
      return <InterceptDetail row={row} {...rest} />;
    case "previews":
      return <PreviewDetail row={row} {...rest} />;
    case "clusters":
      return <ClusterDetail row={row} {...rest} />;
    case "people":
      return <PersonDetail row={row} {...rest} />;
    case "audit":
      return <EntryDetail row={row} {...rest} />;
  }
}

function titleOf(row: Row): string {
  if (row.kind === "intercepts") return row.intercept.name;
  if (row.kind === "previews") return row.preview.host;
  if (row.kind === "clusters") return row.cluster.name;
  return row.kind === "people" ? row.person.name : row.entry.action;
}

function InterceptDetail({ row: { cluster, intercept }, board, snapshot }: DetailProps<"intercepts">): JSX.Element {
  const { busy, notice, run } = useAction();
  const { id, name, workload, client, state, message, filter, createdAtMs, pods, previewIds, own } = intercept;
  const at = `/api/clusters/${encodeURIComponent(cluster.id)}/intercepts/${encodeURIComponent(id)}`;
  const end = (): void => {
    if (confirm(`End the intercept ${name} of ${client}? Its traffic goes to the pods again.`)) {
      run(() => board.send("DELETE", at), "It is being ended…");
    }
  };
  const previews = snapshot.previews.filter((preview) => previewIds.includes(preview.id));
  return (
    <>
      <div class="actions">
        <a class="button" href={`#inspect/${encodeURIComponent(cluster.id)}/${encodeURIComponent(id)}`}>
          Look at its requests
        </a>
        {(own || snapshot.me.admin) && (
          <button type="button" disabled={busy} onClick={end}>
            End the intercept
          </button>
        )}
      </div>
      <Notice text={notice} />
      <Facts
        facts={[
          ["State", message === "" ? state : `${state}: ${message}`],
          ["Workload", `${workload.kind} ${workload.name} in ${workload.namespace}`],
          ["Laptop", client],
          ["Cluster", cluster.name],
          ["Takes", filter ?? "everything"],
          ["Since", dateText(createdAtMs)],
          ["Pods", String(pods)],
          [
            "Previews",
            previews.length === 0
              ? "none"
              : previews.map(({ id: key, url }) => (
                  <a key={key} href={url}>
                    {url}{" "}
                  </a>
                )),
          ],
        ]}
      />
    </>
  );
}

function ClusterDetail({ row: { cluster } }: DetailProps<"clusters">): JSX.Element {
  const { id, team, live, managerVersion = "unknown", intercepts, more } = cluster;
  return (
    <Facts
      facts={[
        [
          "State",
          live ? "live" : "away: no traffic-manager of it is connected here; a laptop that connects brings it back",
        ],
        ["Team", team.name],
        ["Traffic-manager", managerVersion],
        [
          "Intercepts",
          countText(intercepts.length + more, "intercept") + (more === 0 ? "" : `, of which ${more} are not listed`),
        ],
        ["Id", id],
      ]}
    />
  );
}

function PersonDetail({ row: { person }, snapshot }: DetailProps<"people">): JSX.Element {
  const { id, name, admin, teams } = person;
  const previews = snapshot.previews.filter(({ owner }) => owner.id === id);
  return (
    <>
      {snapshot.me.admin && (
        <p>
          <a href={`/people/${id}`}>Rights, teams and logins of {name}</a>
        </p>
      )}
      <Facts
        facts={[
          ["Administrator", admin ? "yes" : "no"],
          ["Teams", teams.map((team) => team.name).join(", ")],
          ["Previews", previews.length === 0 ? "none" : previews.map((preview) => preview.host).join(", ")],
        ]}
      />
    </>
  );
}

function EntryDetail({ row: { entry } }: DetailProps<"audit">): JSX.Element {
  return (
    <Facts
      facts={[
        ["When", dateText(entry.atMs)],
        ["Who", entry.who],
        ["What", entry.action],
        ["To what", entry.subject],
      ]}
    />
  );
}
