// The text that Prometheus reads.
import { expect, test } from "vitest";
import { Metrics } from "./metrics.ts";

test("counters, gauges and histograms in Prometheus' text format", () => {
  const metrics = new Metrics();
  const logins = metrics.counter("logins_total", "Logins");
  logins({ how: "password" });
  logins({ how: "password" }, 2);
  metrics.gauge("people", "People", () => 7);
  const seconds = metrics.histogram("request_seconds", "Requests");
  seconds(0.002, { status: "2xx" });
  seconds(99, { status: "2xx" });
  const text = metrics.format();
  expect(text).toContain('# TYPE logins_total counter\nlogins_total{how="password"} 3\n');
  expect(text).toContain("# TYPE people gauge\npeople 7\n");
  expect(text).toContain('request_seconds_bucket{status="2xx",le="0.001"} 0\n');
  expect(text).toContain('request_seconds_bucket{status="2xx",le="0.0025"} 1\n');
  expect(text).toContain('request_seconds_bucket{status="2xx",le="10"} 1\n');
  expect(text).toContain('request_seconds_bucket{status="2xx",le="+Inf"} 2\n');
  expect(text).toContain('request_seconds_sum{status="2xx"} 99.002\nrequest_seconds_count{status="2xx"} 2\n');
});
