// Which requests are shown: words that all must occur, some of them with a key: `status:5xx`, `method:POST`, `pod:x`.
import type { ExchangeSummary } from "#wire/inspector-api.ts";

export function matches(exchange: ExchangeSummary, query: string): boolean {
  return query
    .toLowerCase()
    .split(/\s+/)
    .every(
      (word) =>
        word === "" ||
        (word.startsWith("-") && word.length > 1 ? !holds(exchange, word.slice(1)) : holds(exchange, word)),
    );
}

function holds(exchange: ExchangeSummary, word: string): boolean {
  const [, key, value = ""] = /^(status|method|pod|intercept|host|by|path):(.*)$/.exec(word) ?? [];
  if (key === undefined) return textOf(exchange).includes(word);
  if (key === "status") return matchesStatus(exchange, value);
  return fieldOf(exchange, key).toLowerCase().includes(value);
}

function matchesStatus({ status, state }: ExchangeSummary, value: string): boolean {
  const text = status === undefined ? state : String(status);
  return value.split("").every((character, at) => character === "x" || text[at] === character);
}

function fieldOf(exchange: ExchangeSummary, key: string): string {
  if (key === "method") return exchange.method;
  if (key === "pod") return exchange.podName;
  if (key === "intercept") return exchange.intercept;
  if (key === "host") return exchange.host;
  return key === "by" ? exchange.answeredBy : exchange.target;
}

function textOf({ method, target, host, status, podName, intercept, contentType = "" }: ExchangeSummary): string {
  return `${method} ${target} ${host} ${status ?? ""} ${podName} ${intercept} ${contentType}`.toLowerCase();
}
