// A preview: who may see it, who has, and the links that let others in.
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { PreviewView, ShareView } from "#wire/cloud-api.ts";
import { CopyButton } from "#dashboard/request-detail.tsx";
import type { Board } from "./board.ts";
import { Facts, Notice, useAction } from "./detail-parts.tsx";
import type { DetailProps } from "./detail-parts.tsx";
import { dateText } from "./rows.tsx";

export function PreviewDetail({ row: { preview }, board }: DetailProps<"previews">): JSX.Element {
  const { busy, notice, run } = useAction();
  const { id, url, access, state, owner, cluster, team, workload, ingress, insecure, headers, createdMs } = preview;
  const at = `/api/previews/${id}`;
  const isPublic = access === "public";
  const changeAccess = (): void => {
    const question = `Anybody who knows ${url} may see it then, without a login. Make it public?`;
    if (!isPublic && !confirm(question)) return;
    run(() => board.send("POST", `${at}/access`, { access: isPublic ? "team" : "public" }));
  };
  const remove = (): void => {
    if (confirm(`Remove ${url}? Links to it are of no use afterwards.`)) run(() => board.send("DELETE", at));
  };
  const tls = ingress.tls ? `, TLS for ${ingress.l5host ?? ingress.host}${insecure ? ", not verified" : ""}` : "";
  return (
    <>
      <div class="actions">
        <a class="button" href={url} target="_blank" rel="noreferrer">
          Open it
        </a>
        <CopyButton text={url} label="Copy the address" />
        <button type="button" disabled={busy} onClick={changeAccess}>
          {isPublic ? "Require a login" : "Make it public"}
        </button>
        <button type="button" disabled={busy} onClick={remove}>
          Remove
        </button>
      </div>
      <Notice text={notice} />
      <Facts
        facts={[
          ["State", state === "live" ? "live" : "sleeping: its laptop or its cluster is away"],
          ["Seen by", isPublic ? "anybody" : `the team ${team.name}, after a login, and who has a link`],
          ["Of", owner.name],
          [
            "Intercept",
            `${preview.intercept}, ${workload.kind} ${workload.name} in ${workload.namespace} of ${cluster}`,
          ],
          ["Enters by", `${ingress.host}:${ingress.port}${tls}`],
          [
            "Adds",
            headers.length === 0 ? "no headers" : headers.map(({ name, value }) => `${name}: ${value}`).join(", "),
          ],
          ["Since", dateText(createdMs)],
        ]}
      />
      <h3>Links for others</h3>
      <Shares board={board} at={at} key={id} />
      <h3>Visitors</h3>
      <Visitors preview={preview} />
    </>
  );
}

function Visitors({ preview }: { readonly preview: PreviewView }): JSX.Element {
  if (preview.visitors.length === 0) return <p class="empty">Nobody yet.</p>;
  return (
    <table class="facts">
      <tbody>
        {preview.visitors.map(({ who, requests, lastMs }) => (
          <tr key={who}>
            <th scope="row">{who}</th>
            <td>
              {requests} requests, last {dateText(lastMs)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const durations: readonly (readonly [string, number])[] = [
  ["an hour", 3600],
  ["a day", 86_400],
  ["a week", 604_800],
  ["30 days", 2_592_000],
];

function Shares({ board, at }: { readonly board: Board; readonly at: string }): JSX.Element {
  const { busy, notice, run } = useAction();
  const [shares, setShares] = useState<readonly ShareView[]>([]);
  const [seconds, setSeconds] = useState(86_400);
  const [made, setMade] = useState<string>();
  const load = async (): Promise<void> => {
    setShares(((await board.read(`${at}/shares`)) as { readonly shares: readonly ShareView[] }).shares);
  };
  useEffect(() => run(load), [at]);
  const make = async (): Promise<void> => {
    const share = (await board.send("POST", `${at}/shares`, { expiresInSeconds: seconds })) as ShareView;
    setMade(share.url);
    await load();
  };
  const revoke = async (id: string): Promise<void> => {
    await board.send("DELETE", `${at}/shares/${id}`);
    setMade(undefined);
    await load();
  };
  return (
    <>
      <div class="actions">
        <label>
          Good for{" "}
          <select value={seconds} onChange={(event) => setSeconds(Number(event.currentTarget.value))}>
            {durations.map(([name, value]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <button type="button" disabled={busy} onClick={() => run(make)}>
          Make a link
        </button>
      </div>
      <Notice text={notice} />
      {made !== undefined && (
        <p>
          It is shown once: <code>{made}</code> <CopyButton text={made} label="Copy the link" />
        </p>
      )}
      <ShareTable shares={shares} busy={busy} onRevoke={(id) => run(() => revoke(id))} />
    </>
  );
}

interface ShareTableProps {
  readonly shares: readonly ShareView[];
  readonly busy: boolean;
  readonly onRevoke: (id: string) => void;
}

function ShareTable({ shares, busy, onRevoke }: ShareTableProps): JSX.Element {
  return (
    <table class="facts">
      <tbody>
        {shares.map(({ id, by, expiresMs }) => (
          <tr key={id}>
            <th scope="row">by {by}</th>
            <td>
              until {dateText(expiresMs)}{" "}
              <button
                type="button"
                disabled={busy}
                aria-label={`Revoke the link until ${dateText(expiresMs)}`}
                onClick={() => onRevoke(id)}
              >
                Revoke
              </button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
