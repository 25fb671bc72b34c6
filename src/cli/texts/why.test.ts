import { describe, expect, test } from "vitest";
import type { WhyWorkload } from "#wire/control-api.ts";
import { formatAge, formatDecisions, formatVerdicts, whyToJson } from "./why.ts";

type Pod = WhyWorkload["pods"][number];
const workload = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
const isAnn = 'request.headers["x-user"] == "ann"';
const intercepts: Pod["intercepts"] = [
  { id: "s1:hello", client: "ann@laptop", filter: isAnn },
  { id: "s2:all", client: "bob@desk" },
];
const podOf = (podName: string, more: Partial<Pod>): Pod => ({
  podName,
  intercepts,
  decisions: [],
  verdicts: [],
  ...more,
});
const of = (...pods: readonly Pod[]): readonly WhyWorkload[] => [{ workload, pods: [...pods], intercepts: [] }];
const request = { containerPort: 80, method: "GET", refused: [] } as const;
const refused = [{ intercept: 0, matched: false, joined: "&&" as const, conditions: [{ text: isAnn, value: false }] }];

describe("the last requests", () => {
  test("of all pods are one line each, the newest last", () => {
    const one = podOf("hello-1", {
      decisions: [
        {
          ...request,
          refused: [],
          ageMs: 65_000,
          target: "/a",
          taken: 0,
          answeredBy: "laptop",
          status: 200,
          durationMs: 12.4,
        },
        { ...request, refused, ageMs: 900, target: "/c", answeredBy: "application", status: 404, durationMs: 3 },
      ],
    });
    const two = podOf("hello-2", {
      decisions: [
        { containerPort: 80, refused: [], source: "10.1.2.3", ageMs: 2000, taken: 1, answeredBy: "laptop" },
        {
          ...request,
          refused: [],
          ageMs: 5,
          target: "/d",
          taken: 0,
          left: "nothing listens",
          answeredBy: "application",
        },
      ],
    });
    expect(formatDecisions(of(one, two), 20)).toEqual([
      "Last requests to Deployment hello in namespace shop",
      "     65 s  hello-1  GET /a → laptop of ann@laptop, 200 in 12 ms: intercept hello of ann@laptop matches",
      "      2 s  hello-2  connection from 10.1.2.3 → laptop of bob@desk: intercept all of bob@desk takes everything",
      `   900 ms  hello-1  GET /c → application, 404 in 3 ms: intercept hello of ann@laptop: ${isAnn} is false`,
      "     5 ms  hello-2  GET /d → application: intercept hello of ann@laptop took it, but nothing listens",
    ]);
    expect(formatDecisions(of(one, two), 1)).toHaveLength(2);
    expect(formatDecisions(of(podOf("hello-1", {})), 20)).toEqual([
      "No request has come to Deployment hello in namespace shop yet",
    ]);
  });

  test("say what is not known, and what nobody answered", () => {
    const absent = { text: isAnn, reason: 'request.headers["x-user"] is absent' };
    const decisions: Pod["decisions"] = [
      { ...request, target: "/1", ageMs: 6, refused: [{ intercept: 0, conditions: [absent] }] },
      {
        ...request,
        target: "/2",
        ageMs: 5,
        refused: [{ intercept: 0, conditions: [] }],
        durationMs: 1,
        failure: "the caller left",
      },
      {
        ...request,
        target: "/3",
        ageMs: 4,
        refused: [],
        isProbe: true,
        answeredBy: "application",
        status: 200,
        durationMs: 1,
      },
      { containerPort: 80, source: "10.1.2.3", ageMs: 3, refused, answeredBy: "application" },
      {
        ...request,
        target: "/5",
        ageMs: 2,
        refused: [],
        taken: 0,
        answeredBy: "agent",
        status: 502,
        durationMs: 1,
        failure: "lost",
      },
      {
        ageMs: 1,
        containerPort: 53,
        isUdp: true,
        source: "10.1.2.3",
        refused: [],
        taken: 0,
        left: "no process listens on the laptop",
        answeredBy: "application",
      },
      {
        ...request,
        target: "/\u001b[2J\u202e",
        ageMs: 1,
        refused: [],
        answeredBy: "application",
        status: 200,
        durationMs: 1,
      },
    ];
    expect(
      formatDecisions(of(podOf("p", { decisions })), 20)
        .slice(1)
        .map((line) => line.trim().slice(9)),
    ).toEqual([
      `GET /1 → not answered yet: intercept hello of ann@laptop: ${isAnn} is not known (${absent.reason})`,
      "GET /2 → no answer in 1 ms (the caller left): intercept hello of ann@laptop does not match, and it is too long ago to say why",
      "GET /3 → application, 200 in 1 ms: a probe of the kubelet's, which asks for the application",
      "connection from 10.1.2.3 → application: intercept hello of ann@laptop takes requests of HTTP only",
      "GET /5 → traffic-agent, 502 in 1 ms (lost): intercept hello of ann@laptop matches",
      "datagrams from 10.1.2.3 → application: intercept hello of ann@laptop took it, but no process listens on the laptop",
      "GET / [2J  → application, 200 in 1 ms: no intercept takes requests of this port",
    ]);
  });
});

describe("a request that nobody has sent", () => {
  const suppose = { method: "GET", target: "/cart", headers: [] };
  const taken = { containerPort: 80, taken: 1, rules: [...refused, { intercept: 1, matched: true, conditions: [] }] };

  test("is told rule by rule, once for pods that say the same", () => {
    const pods = [podOf("hello-1", { verdicts: [taken] }), podOf("hello-2", { verdicts: [taken] })];
    expect(formatVerdicts(of(...pods), suppose)).toEqual([
      "GET /cart to Deployment hello, port 80, goes to the laptop of bob@desk (intercept all) in 2 pods",
      "   intercept hello of ann@laptop: does not match",
      `      ${isAnn} is false`,
      "   intercept all of bob@desk: takes everything",
    ]);
  });

  test("may hang on its body, or find nobody", () => {
    const undecided = {
      containerPort: 80,
      undecided: 0,
      rules: [{ intercept: 0, conditions: [{ text: "a" }, { text: "b", value: true }], joined: "||" as const }],
    };
    expect(formatVerdicts(of(podOf("hello-1", { verdicts: [undecided] })), suppose)).toEqual([
      "GET /cart to Deployment hello, port 80, goes to whom its body decides, else the application, in pod hello-1",
      "   intercept hello of ann@laptop: only the body can tell",
      "      one of:",
      "         a is not known",
      "         b is true",
    ]);
    expect(formatVerdicts(of(podOf("hello-1", {})), suppose)).toEqual([
      "GET /cart to Deployment hello goes to the application in pod hello-1: nothing is intercepted there",
    ]);
  });
});

test("scripts get stable keys", () => {
  const decisions = [
    { ...request, target: "/a", ageMs: 1.4, refused, answeredBy: "application" as const, status: 200, durationMs: 2.6 },
  ];
  const verdicts = [{ containerPort: 80, taken: 0, rules: [] }];
  expect(JSON.parse(JSON.stringify(whyToJson(of(podOf("hello-1", { decisions, verdicts })), 20)))).toEqual([
    {
      workload,
      intercepts: [],
      requests: [
        {
          pod: "hello-1",
          age_ms: 1,
          container_port: 80,
          kind: "request",
          method: "GET",
          path: "/a",
          answered_by: "application",
          status: 200,
          duration_ms: 3,
          refused_by: [
            {
              id: "s1:hello",
              name: "hello",
              client: "ann@laptop",
              filter: isAnn,
              matched: false,
              joined: "&&",
              conditions: [{ text: isAnn, value: false }],
            },
          ],
        },
      ],
      verdicts: [
        {
          pod: "hello-1",
          container_port: 80,
          goes_to: "laptop",
          taken_by: { id: "s1:hello", name: "hello", client: "ann@laptop", filter: isAnn },
          rules: [],
        },
      ],
    },
  ]);
});

test.each([
  [3, "3 ms"],
  [119_000, "119 s"],
  [3_600_000, "60 min"],
  [7_200_000, "2 h"],
])("%d ms is %s", (ms, text) => {
  expect(formatAge(ms)).toBe(text);
});

test("a probe says who answers it, and by whose wish", () => {
  const probe = { containerPort: 80, method: "GET", target: "/healthz", isProbe: true, refused: [], status: 200 };
  const said = (more: Partial<Pod["decisions"][number]>): string =>
    formatDecisions(of(podOf("hello-1", { decisions: [{ ageMs: 1000, ...probe, ...more }] })), 9).join("\n");
  expect(said({ answeredBy: "application" })).toContain("a probe of the kubelet's, which asks for the application");
  expect(said({ answeredBy: "agent" })).toContain("traffic-agent, 200: a probe of the kubelet's, which --probes agent");
  expect(said({ answeredBy: "laptop", taken: 0 })).toContain("which --probes laptop gives to");
});
