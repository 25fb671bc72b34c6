// How many requests came and how long they took, second by second of the last minute.
import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { ExchangeSummary } from "#wire/inspector-api.ts";
import { formatMs } from "./format.ts";

const seconds = 60;
const [width, height] = [240, 44];

interface Second {
  count: number;
  times: number[];
}

export function Plots({ exchanges }: { readonly exchanges: readonly ExchangeSummary[] }): JSX.Element {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const buckets = bySecond(exchanges, now);
  const counts = buckets.map(({ count }) => count);
  const times = buckets.flatMap((second) => second.times).sort((a, b) => a - b);
  const worst = buckets.map((second) => (second.times.length === 0 ? undefined : Math.max(...second.times)));
  const total = counts.reduce((sum, count) => sum + count, 0);
  return (
    <section class="plots" aria-label="The last minute">
      <Plot name="Requests in each second" latest={`${total} in the last minute`} values={counts} bars />
      <Plot
        name="Slowest answer in each second"
        latest={`half within ${formatMs(quantile(times, 0.5))}, 95 % within ${formatMs(quantile(times, 0.95))}`}
        values={worst}
      />
    </section>
  );
}

function bySecond(exchanges: readonly ExchangeSummary[], now: number): Second[] {
  const buckets = Array.from({ length: seconds }, (): Second => ({ count: 0, times: [] }));
  for (let at = exchanges.length - 1; at >= 0; at -= 1) {
    const exchange = exchanges[at];
    if (exchange === undefined) break;
    const age = Math.floor((now - exchange.startedAt) / 1000);
    if (age >= seconds) break;
    const bucket = buckets[seconds - 1 - Math.max(0, age)];
    if (bucket === undefined) continue;
    bucket.count += 1;
    if (exchange.answerEndMs !== undefined) bucket.times.push(exchange.answerEndMs);
  }
  return buckets;
}

function quantile(sorted: readonly number[], part: number): number | undefined {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}

interface PlotProps {
  readonly name: string;
  readonly latest: string;
  readonly values: readonly (number | undefined)[];
  readonly bars?: boolean;
}

export function Plot({ name, latest, values, bars }: PlotProps): JSX.Element {
  const top = Math.max(1, ...values.map((value) => value ?? 0));
  const step = width / values.length;
  return (
    <figure>
      <figcaption>
        {name}: {latest}
      </figcaption>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${name}: ${latest}`} preserveAspectRatio="none">
        {values.map((value, at) => {
          if (value === undefined || value === 0) return undefined;
          const tall = Math.max(1.5, (value / top) * height);
          const dot = bars === true ? tall : 3;
          return <rect key={at} x={at * step + 0.4} y={height - tall} width={step - 0.8} height={dot} />;
        })}
      </svg>
    </figure>
  );
}
