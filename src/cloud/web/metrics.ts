// Counters, gauges and histograms in Prometheus' text format. Names and labels are constants of the code, so that their
// number is bounded; nothing a visitor sends becomes a label.

type Labels = Readonly<Record<string, string>>;

/** chosen, in seconds: a request to our own pages, up to one that hangs. */
const defaultBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

interface Family {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** By the labels' text. */
  readonly samples: Map<string, { value: number; counts?: number[]; sum: number }>;
  readonly read: (() => number) | undefined;
}

export class Metrics {
  readonly #families = new Map<string, Family>();

  /** Returns what adds to it. */
  counter(name: string, help: string): (labels?: Labels, by?: number) => void {
    const { samples } = this.#family(name, { kind: "counter", help });
    return (labels = {}, by = 1) => {
      const key = formatLabels(labels);
      const sample = samples.get(key) ?? { value: 0, sum: 0 };
      sample.value += by;
      samples.set(key, sample);
    };
  }

  /** `read` is asked whenever somebody looks. */
  gauge(name: string, help: string, read: () => number): void {
    this.#family(name, { kind: "gauge", help, read });
  }

  /** Returns what notes a duration in seconds. */
  histogram(name: string, help: string): (seconds: number, labels?: Labels) => void {
    const { samples } = this.#family(name, { kind: "histogram", help });
    return (seconds, labels = {}) => {
      const key = formatLabels(labels);
      const sample = samples.get(key) ?? { value: 0, sum: 0, counts: defaultBuckets.map(() => 0) };
      const place = defaultBuckets.findIndex((limit) => seconds <= limit);
      if (place !== -1 && sample.counts !== undefined) sample.counts[place] = (sample.counts[place] ?? 0) + 1;
      sample.value++;
      sample.sum += seconds;
      samples.set(key, sample);
    };
  }

  format(): string {
    return [...this.#families].map(([name, family]) => formatFamily(name, family)).join("");
  }

  #family(name: string, { kind, help, read }: Pick<Family, "kind" | "help"> & { read?: () => number }): Family {
    const family: Family = { kind, help, samples: new Map(), read };
    this.#families.set(name, family);
    return family;
  }
}

function formatFamily(name: string, { kind, help, samples, read }: Family): string {
  const lines = [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`];
  if (read !== undefined) lines.push(`${name} ${read()}`);
  for (const [labels, { value, counts, sum }] of samples) {
    if (counts === undefined) {
      lines.push(`${name}${braces(labels)} ${value}`);
      continue;
    }
    let below = 0;
    for (const [index, limit] of defaultBuckets.entries()) {
      below += counts[index] ?? 0;
      lines.push(`${name}_bucket${braces(join(labels, `le="${limit}"`))} ${below}`);
    }
    lines.push(`${name}_bucket${braces(join(labels, 'le="+Inf"'))} ${value}`);
    lines.push(`${name}_sum${braces(labels)} ${sum}`, `${name}_count${braces(labels)} ${value}`);
  }
  return `${lines.join("\n")}\n`;
}

const formatLabels = (labels: Labels): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, "_")}"`)
    .join(",");
const join = (...parts: readonly string[]): string => parts.filter((part) => part !== "").join(",");
const braces = (labels: string): string => (labels === "" ? "" : `{${labels}}`);
