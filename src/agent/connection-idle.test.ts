// The story: "idle for 5 s" alone closes the connection of a caller whose request takes 10 s.
import { describe, expect, test } from "vitest";
import type { TcpConnection, TcpTraffic } from "#kernel/sock-diag-messages.ts";
import { isIdle } from "./connection-idle.ts";

const end = { address: "198.51.100.1", port: 1 };
const connection = (traffic: Partial<TcpTraffic>, rest: Partial<TcpConnection> = {}): TcpConnection => ({
  local: end,
  remote: end,
  state: 1,
  cookie: "",
  unreadBytes: 0,
  unacknowledgedBytes: 0,
  traffic: {
    sinceSentMs: 5000,
    sinceReceivedMs: 5100,
    sinceAcknowledgedMs: 4960,
    receivedBytes: 9,
    receivedSegments: 2,
    ...traffic,
  },
  identity: new Uint8Array(48),
  family: 4,
  ...rest,
});

describe("isIdle()", () => {
  test("closes what was answered 5 s ago", () => {
    expect(isIdle(connection({}))).toBe(true);
    expect(isIdle(connection({ sinceSentMs: 4999 }))).toBe(false);
  });
  test("never closes where the caller may wait for its answer", () => {
    expect(isIdle(connection({ sinceSentMs: 3_600_000, sinceReceivedMs: 600_000 }))).toBe(false);
  });
  test("never closes while bytes are on their way", () => {
    expect(isIdle(connection({}, { unreadBytes: 1 }))).toBe(false);
    expect(isIdle(connection({}, { unacknowledgedBytes: 1 }))).toBe(false);
  });
  test("closes what was opened in advance", () => {
    expect(isIdle(connection({ sinceSentMs: 6000, sinceReceivedMs: 6000, receivedBytes: 0 }))).toBe(true);
  });
  describe("with answer and question within one tick", () => {
    const unclear = { sinceSentMs: 6000, sinceReceivedMs: 6000 };
    test("takes a lone acknowledgement for the end of the answer", () => {
      expect(isIdle(connection({ ...unclear, sinceAcknowledgedMs: 5956 }))).toBe(true);
    });
    test("takes the only question for answered", () => {
      expect(isIdle(connection({ ...unclear, receivedSegments: 1 }))).toBe(true);
    });
    test("does not take a keep-alive for one", () => {
      expect(isIdle(connection({ ...unclear, sinceAcknowledgedMs: 500 }))).toBe(false);
    });
    test("waits longer than a long poll else", () => {
      expect(isIdle(connection({ ...unclear, sinceAcknowledgedMs: 6000 }))).toBe(false);
      const long = { sinceSentMs: 65_000, sinceReceivedMs: 65_000, sinceAcknowledgedMs: 65_000 };
      expect(isIdle(connection(long))).toBe(true);
    });
  });
  test("closes nothing of which the kernel does not tell", () => {
    expect(isIdle(connection({}, { traffic: undefined }))).toBe(false);
  });
});
