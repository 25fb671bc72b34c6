import { describe, expect, test } from "vitest";
import { findListeningPorts, parseListeningPorts } from "./listening-ports.ts";

const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const rest = "00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";
const ipv4 = [
  heading,
  `   0: 00000000:1F90 00000000:0000 0A ${rest}`,
  `   1: 0100007F:0050 00000000:0000 0A ${rest}`,
  `   2: 0100007F:01BB 0100007F:D431 01 ${rest}`,
  ` 103: 0100007F:1FFF 0100007F:D431 06 ${rest}`,
  "",
].join("\n");
const ipv6 = `${heading}\n   0: 00000000000000000000000000000000:24B8 00000000000000000000000000000000:0000 0A ${rest}\n`;

describe("parseListeningPorts()", () => {
  test("reads sockets that listen, of both families, and no connections", () => {
    expect([...parseListeningPorts(ipv4)]).toEqual([8080, 80]);
    expect([...parseListeningPorts(ipv6)]).toEqual([9400]);
    expect(parseListeningPorts("").size).toBe(0);
  });
});

// UDP has no state of its own for that: a socket with a peer is somebody's client.
test("of UDP, sockets without a peer listen", () => {
  const udp = [
    heading,
    `   0: 00000000:0035 00000000:0000 07 ${rest}`,
    `   1: 0100007F:C350 0100007F:0035 01 ${rest}`,
  ].join("\n");
  expect([...parseListeningPorts(udp, "udp")]).toEqual([53]);
  expect(parseListeningPorts(udp).size).toBe(0);
});

describe("findListeningPorts()", () => {
  const missing = (): Promise<never> => Promise.reject(new Error("ENOENT"));

  test("joins the families, and is content with one table", async () => {
    const both = await findListeningPorts(async (path) => (path.endsWith("6") ? ipv6 : ipv4));
    expect([...(both ?? [])]).toEqual([8080, 80, 9400]);
    const one = await findListeningPorts((path) => (path.endsWith("6") ? missing() : Promise.resolve(ipv4)));
    expect([...(one ?? [])]).toEqual([8080, 80]);
  });

  test("says that it does not know when there is no table", async () => {
    expect(await findListeningPorts(missing)).toBeUndefined();
  });
});
