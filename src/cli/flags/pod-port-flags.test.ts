import { describe, expect, test } from "vitest";
import { podPortWarnings, readPodPorts } from "./pod-port-flags.ts";

describe("--to-pod", () => {
  test("takes a port and its protocol", () => {
    expect(readPodPorts(["6379", "53/udp", "80/TCP"])).toEqual([
      { port: 6379, protocol: "tcp" },
      { port: 53, protocol: "udp" },
      { port: 80, protocol: "tcp" },
    ]);
    expect(readPodPorts(undefined)).toEqual([]);
  });
  test.each([
    [["0"], 'is "0", expected PORT or PORT/udp'],
    [["65536"], 'is "65536"'],
    [["80:8080"], 'is "80:8080"'],
    [["53/sctp"], 'is "53/sctp"'],
    [["24899"], "which is the traffic-agent's own port"],
    [["24963/udp"], "which is the traffic-agent's own port"],
    [["53/udp", "53/UDP"], "names 53/udp twice"],
    [["8080"], "where --port has the local process listen"],
  ])("%j is refused", (flags, said) => {
    expect(() => readPodPorts(flags, ["8080:http"])).toThrow(said);
  });
  test("says what becomes of datagrams", () => {
    expect(podPortWarnings(readPodPorts(["53/udp", "53"]))).toEqual([
      expect.stringContaining("UDP port 53 is reached at the pod's own address"),
    ]);
  });
});
