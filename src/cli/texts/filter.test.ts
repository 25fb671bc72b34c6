import { describe, expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { filterPairs, formatFilter, overlapWarnings } from "./filter.ts";

const infoOf = (filter?: string, overlaps?: InterceptInfo["overlaps"]): InterceptInfo => ({
  id: "s:hello",
  spec: {
    name: "hello",
    workload: { kind: "Deployment", name: "hello", namespace: "shop" },
    containerName: "app",
    ports: [{ containerPort: 80, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 8080 }],
    ...(filter === undefined ? {} : { filter }),
  },
  client: "ada@laptop",
  sessionId: "s",
  state: "active",
  message: "",
  pods: [],
  refusedByLaptop: 0,
  ...(overlaps === undefined ? {} : { overlaps }),
  createdAtMs: 0,
});

describe("an intercept's filter", () => {
  test("is shown as it is, line by line, and says nothing where there is none", () => {
    expect(filterPairs(infoOf())).toEqual([]);
    expect(filterPairs(infoOf("a //x\n&& b"))).toEqual([
      { key: "Intercepting", value: "HTTP requests that match", below: ["a //x", "&& b"] },
    ]);
  });
  test("of a personal intercept tells the header to send", () => {
    const header = "x-telepresence-intercept-id";
    const filter = `request.headers["${header}"] == "s:hello" || request.baggage["${header}"] == "s:hello"`;
    expect(filterPairs(infoOf(filter))[1]).toEqual({ key: "Header to send", value: `${header}: s:hello` });
  });
  test("of somebody else moves no cursor", () => {
    expect(formatFilter("true // \u001b[2J\u202e")).toBe("HTTP requests that match true //  [2J ");
  });
  test("that others share is a warning, with who is asked first", () => {
    const other = { id: "t:x", client: "bob@desk", name: "x", createdAtMs: 0, first: true };
    const info = infoOf("true", [{ ...other, filter: 'request.path == "/"' }]);
    expect(overlapWarnings(info)).toEqual([
      'the same requests may be taken by bob@desk (intercept x: HTTP requests that match request.path == "/") since 1970-01-01T00:00:00.000Z, which is asked first',
    ]);
    expect(filterPairs(info)[1]?.key).toBe("Shared with");
  });
});
