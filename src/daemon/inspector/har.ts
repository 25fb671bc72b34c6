// Exchanges as an HTTP Archive (HAR 1.2), which browsers' and other tools open.
import type { ExchangeView, HeaderView } from "#wire/inspector-api.ts";

/** Its text in pieces, one entry at a time: all together, with compressed bodies undone, may be more than memory holds. */
export function* harPieces(views: Iterable<ExchangeView>, version: string): Generator<string> {
  const creator = JSON.stringify({ name: "telepresence", version });
  yield `{"log":{"version":"1.2","creator":${creator},"entries":[`;
  let separator = "";
  for (const view of views) {
    yield separator + JSON.stringify(entryOf(view));
    separator = ",";
  }
  yield "]}}";
}

function entryOf(view: ExchangeView): object {
  const { requestEndMs = 0, answerStartMs = requestEndMs, answerEndMs = answerStartMs } = view;
  const url = `http://${view.host}${view.target}`;
  return {
    startedDateTime: new Date(view.startedAt).toISOString(),
    time: answerEndMs,
    request: {
      method: view.method,
      url,
      httpVersion: view.version,
      cookies: [],
      headers: nameAndValue(view.requestHeaders),
      queryString: queryOf(view.target),
      ...(view.requestBody.bytes === 0 ? {} : { postData: postDataOf(view) }),
      headersSize: -1,
      bodySize: view.requestBody.bytes,
    },
    response: {
      status: view.status ?? 0,
      statusText: "",
      httpVersion: view.version,
      cookies: [],
      headers: nameAndValue(view.answerHeaders),
      content: contentOf(view),
      redirectURL: "",
      headersSize: -1,
      bodySize: view.answerBody.bytes,
    },
    cache: {},
    timings: { send: requestEndMs, wait: answerStartMs - requestEndMs, receive: answerEndMs - answerStartMs },
    comment: `${view.intercept}, pod ${view.podName}, answered by the ${view.answeredBy}`,
  };
}

function nameAndValue(headers: readonly HeaderView[]): object[] {
  return headers.map(({ name, value }) => ({ name, value }));
}

function queryOf(target: string): object[] {
  const question = target.indexOf("?");
  if (question < 0) return [];
  return [...new URLSearchParams(target.slice(question + 1))].map(([name, value]) => ({ name, value }));
}

function postDataOf({ requestHeaders, requestBody }: ExchangeView): object {
  return { mimeType: typeOf(requestHeaders), text: requestBody.text ?? "" };
}

function contentOf({ answerHeaders, answerBody }: ExchangeView): object {
  const { bytes: size, text, base64 } = answerBody;
  const mimeType = typeOf(answerHeaders);
  return text === undefined ? { size, mimeType, text: base64, encoding: "base64" } : { size, mimeType, text };
}

function typeOf(headers: readonly HeaderView[]): string {
  return headers.find(({ name }) => name === "content-type")?.value ?? "application/octet-stream";
}
