// One request: what was asked, what was answered, where the time went; to copy, to send again, to compare with the pod.
import { useEffect, useState } from "preact/hooks";
import type { ComponentChildren, JSX } from "preact";
import type { BodyView, ExchangeSummary, ExchangeView, HeaderView } from "#wire/inspector-api.ts";
import { toCurl } from "./curl.ts";
import { difference } from "./difference.ts";
import type { Feed } from "./feed.ts";
import { formatBytes, formatMs, formatTime } from "./format.ts";
import { statusClass, statusText } from "./request-list.tsx";

export interface RequestDetailProps {
  readonly summary: ExchangeSummary;
  readonly feed: Feed;
  readonly mayAct: boolean;
  readonly mayReveal: boolean;
  readonly onChoose: (id: number) => void;
  readonly onClose: () => void;
}

/** Asking for these again changes nothing (RFC 9110 §9.2.1). */
const safeMethods = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);

export function RequestDetail(props: RequestDetailProps): JSX.Element {
  const { summary, feed, mayAct, mayReveal, onChoose, onClose } = props;
  const [view, setView] = useState<ExchangeView>();
  const [compared, setCompared] = useState<ExchangeView>();
  const [reveal, setReveal] = useState(false);
  const [notice, setNotice] = useState("");
  const { id, revision } = summary;
  useEffect(() => {
    let isWanted = true;
    const take = (next: ExchangeView): void => void (isWanted && setView(next));
    feed.read(id, reveal).then(take, (error: unknown) => setNotice(String((error as Error).message)));
    return () => {
      isWanted = false;
    };
  }, [feed, id, revision, reveal]);
  const send = async (to: "laptop" | "pod", compare: boolean): Promise<void> => {
    const question = `${summary.method} may change something. Send it to the ${to} again?`;
    if (!safeMethods.has(summary.method) && !confirm(question)) return;
    setNotice(`Sending it to the ${to}…`);
    try {
      const answered = await feed.replay(id, to, reveal);
      setNotice("");
      if (compare) setCompared(answered);
      else onChoose(answered.id);
    } catch (error) {
      setNotice((error as Error).message);
    }
  };
  return (
    <section class="detail" aria-label="The chosen request">
      <div class="detail-head">
        <h2>
          <span class={`status ${statusClass(summary)}`}>{statusText(summary)}</span> {summary.method} {summary.target}
        </h2>
        <button type="button" class="close" aria-label="Close" onClick={onClose}>
          ✕
        </button>
      </div>
      <div class="actions">
        {mayAct && <SendButtons send={send} />}
        <CopyButton text={view === undefined ? "" : toCurl(view)} />
        {mayReveal && (
          <label>
            <input type="checkbox" checked={reveal} onInput={(event) => setReveal(event.currentTarget.checked)} /> Show
            secrets
          </label>
        )}
      </div>
      <p class="notice" role="status">
        {notice}
      </p>
      {view !== undefined && <Timing view={view} />}
      {view !== undefined && compared !== undefined && <Comparison own={view} pod={compared} />}
      {view !== undefined && <Messages view={view} />}
    </section>
  );
}

type Send = (to: "laptop" | "pod", compare: boolean) => Promise<void>;

function SendButtons({ send }: { readonly send: Send }): JSX.Element {
  return (
    <>
      <button type="button" onClick={() => void send("laptop", false)}>
        Send again
      </button>
      <button type="button" onClick={() => void send("pod", false)}>
        Send to the pod
      </button>
      <button type="button" onClick={() => void send("pod", true)}>
        Compare with the pod
      </button>
    </>
  );
}

export function CopyButton({
  text,
  label = "Copy as curl",
}: {
  readonly text: string;
  readonly label?: string;
}): JSX.Element {
  const [isCopied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" disabled={text === ""} onClick={() => void copy()}>
      {isCopied ? "Copied" : label}
    </button>
  );
}

function Timing({ view }: { readonly view: ExchangeView }): JSX.Element {
  const { requestEndMs = 0, answerStartMs = requestEndMs, answerEndMs = answerStartMs, answeredBy } = view;
  const total = Math.max(answerEndMs, 0.001);
  const part = (ms: number): { width: string } => ({ width: `${Math.max(0.5, (ms / total) * 100)}%` });
  const processName = answeredBy === "pod" ? "the pod" : view.processAddress;
  return (
    <div class="timing">
      <p>
        {formatTime(view.startedAt)} {view.caller} → {view.podName} → {processName}, {view.version}
      </p>
      <div class="bar" role="img" aria-label={`${formatMs(answerEndMs)} in all`}>
        <span class="asked" style={part(requestEndMs)} />
        <span class="waited" style={part(answerStartMs - requestEndMs)} />
        <span class="answered" style={part(answerEndMs - answerStartMs)} />
      </div>
      <p>
        request {formatMs(requestEndMs)}, waiting {formatMs(answerStartMs - requestEndMs)}, answer{" "}
        {formatMs(answerEndMs - answerStartMs)}
        {view.linkMs !== undefined && `; from the pod to the laptop and back ${formatMs(view.linkMs)} more`}
      </p>
    </div>
  );
}

function Messages({ view }: { readonly view: ExchangeView }): JSX.Element {
  return (
    <>
      <Message title="Request" headers={view.requestHeaders} body={view.requestBody} />
      <Message title="Answer" headers={view.answerHeaders} body={view.answerBody}>
        {view.answerTrailers.length > 0 && <Headers headers={view.answerTrailers} caption="Trailers" />}
      </Message>
    </>
  );
}

interface MessageProps {
  readonly title: string;
  readonly headers: readonly HeaderView[];
  readonly body: BodyView;
  readonly children?: ComponentChildren;
}

function Message({ title, headers, body, children }: MessageProps): JSX.Element {
  return (
    <div class="message">
      <h3>{title}</h3>
      <Headers headers={headers} caption={`${title}: header lines`} />
      <Body body={body} />
      {children}
    </div>
  );
}

function Headers({
  headers,
  caption,
}: {
  readonly headers: readonly HeaderView[];
  readonly caption: string;
}): JSX.Element {
  return (
    <table>
      <caption>{caption}</caption>
      <tbody>
        {headers.map(({ name, value, hidden }, at) => (
          <tr key={at}>
            <th scope="row">{name}</th>
            <td class={hidden === true ? "hidden-value" : undefined}>{value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Body({ body }: { readonly body: BodyView }): JSX.Element {
  if (body.bytes === 0) return <p class="empty">No body</p>;
  const coding = body.coding === undefined ? "" : `, ${body.coding}`;
  const cut = body.cut ? ", of which the beginning is shown" : "";
  return (
    <>
      <p class="body-head">
        {formatBytes(body.bytes)}
        {coding}
        {cut}
        {body.hidden && ", with secrets hidden"}
      </p>
      <pre tabIndex={0}>{body.text === undefined ? hexOf(body.base64 ?? "") : indented(body.text)}</pre>
    </>
  );
}

/** JSON with line ends; anything else as it is. */
function indented(text: string): string {
  try {
    return /^\s*[[{]/.test(text) ? JSON.stringify(JSON.parse(text), undefined, 2) : text;
  } catch {
    return text;
  }
}

function hexOf(base64: string): string {
  const bytes = Uint8Array.from(atob(base64).slice(0, 4096), (character) => character.charCodeAt(0));
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

function Comparison({ own, pod }: { readonly own: ExchangeView; readonly pod: ExchangeView }): JSX.Element {
  const lines = difference(answerText(own), answerText(pod));
  const differing = lines.filter(({ kind }) => kind !== "same").length;
  return (
    <div class="message">
      <h3>Difference</h3>
      <p class="body-head">
        {differing === 0
          ? "Both answers are the same."
          : `− the ${own.answeredBy}'s answer, + the pod's answer now: ${differing} lines differ.`}
      </p>
      <pre class="difference" tabIndex={0}>
        {lines.map(({ kind, text }, at) => (
          <span key={at} class={kind}>
            {{ same: "  ", left: "− ", right: "+ " }[kind]}
            {text}
            {"\n"}
          </span>
        ))}
      </pre>
    </div>
  );
}

/** Changes with every answer. */
const unlike = new Set(["date", "content-length", "connection", "keep-alive", "transfer-encoding"]);

function answerText({ status, answerHeaders, answerBody, answerTrailers }: ExchangeView): string {
  const headers = [...answerHeaders, ...answerTrailers].filter(({ name }) => !unlike.has(name));
  const lines = headers.map(({ name, value }) => `${name}: ${value}`).sort();
  const body = answerBody.text === undefined ? hexOf(answerBody.base64 ?? "") : indented(answerBody.text);
  return [`status ${status ?? "none"}`, ...lines, "", body].join("\n");
}
