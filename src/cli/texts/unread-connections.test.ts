// Story of the original: a filter on a port whose callers spoke TLS, or no HTTP at all, took nothing and said nothing.
import { describe, expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { describeUnread } from "./unread-connections.ts";

const of = (unreadConnections: InterceptInfo["unreadConnections"]): readonly string[] =>
  describeUnread({ spec: { filter: "true" }, unreadConnections } as InterceptInfo);

describe("connections that a filter could not see into", () => {
  test("are not spoken of while there are none", () => {
    expect(of(undefined)).toEqual([]);
  });

  test("are counted, with why TLS was not read, in a sentence for each kind", () => {
    expect(of({ tls: 3, other: 1, reason: "the application asks its callers for a certificate" })).toEqual([
      "3 connections spoke TLS and went by the filter: the application asks its callers for a certificate",
      "1 connection spoke something other than HTTP and went by the filter",
    ]);
  });

  test("went by no filter where there is none: a wiretap wants TLS read without one", () => {
    const info = { spec: {}, unreadConnections: { tls: 1, other: 0 } } as InterceptInfo;
    expect(describeUnread(info)).toEqual(["1 connection spoke TLS and could not be read"]);
  });

  test("do not move the cursor by what a pod says", () => {
    expect(of({ tls: 1, other: 0, reason: "a\u001b[2Jb\nc" })).toEqual([
      "1 connection spoke TLS and went by the filter: a [2Jb c",
    ]);
  });
});
