// Policy routing by a packet's mark (ip-rule(8)) as netlink messages; pure.
import { NetlinkWriter, nlm } from "./netlink.ts";
import { rtm } from "./rtnetlink-messages.ts";

/** Packets with `mark` are delivered in this very namespace, whatever their destination is. */
export interface MarkRoute {
  readonly family: 4 | 6;
  readonly mark: number;
  /** Number of the routing table that holds the one route. */
  readonly table: number;
  /** Of the rule; lower ones are asked first, and the kernel's table of local addresses has 0. */
  readonly priority: number;
}
export type RouteChange = "add" | "delete";

const newRule = 32;
const deleteRule = 33;
const toTable = 1; // FR_ACT_TO_TBL
const fraPriority = 6;
const fraMark = 10;
const fraTable = 15;
const fraMask = 16;
const rtaOif = 4;
const rtaTable = 15;
const rtprotStatic = 4;
const scopeHost = 254;
const routeLocal = 2;
/** The loopback device has this number in every network namespace. */
const loopbackIndex = 1;

/** `ip rule add fwmark MARK lookup TABLE priority PRIORITY` */
export function encodeMarkRule(sequence: number, change: RouteChange, route: MarkRoute): Uint8Array {
  const header = familyHeader(route);
  header[7] = toTable;
  const type = change === "add" ? newRule : deleteRule;
  return new NetlinkWriter()
    .message({ type, flags: flagsOf(change), sequence }, header, (writer) =>
      writer
        .u32(fraPriority, route.priority)
        .u32(fraMark, route.mark)
        .u32(fraMask, 0xffff_ffff)
        .u32(fraTable, route.table),
    )
    .bytes();
}

/** `ip route add local default dev lo table TABLE` */
export function encodeLocalRoute(sequence: number, change: RouteChange, route: MarkRoute): Uint8Array {
  const header = familyHeader(route);
  header[5] = rtprotStatic;
  header[6] = route.family === 4 ? scopeHost : 0;
  header[7] = routeLocal;
  const type = change === "add" ? rtm.newRoute : rtm.deleteRoute;
  return new NetlinkWriter()
    .message({ type, flags: flagsOf(change), sequence }, header, (writer) =>
      writer.u32(rtaOif, loopbackIndex).u32(rtaTable, route.table),
    )
    .bytes();
}

/** Of a rule and of a route alike: 12 bytes that begin with the family; the table is an attribute. */
function familyHeader(route: MarkRoute): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = route.family === 4 ? 2 : 10;
  return header;
}

function flagsOf(change: RouteChange): number {
  return nlm.request | nlm.ack | (change === "add" ? nlm.create | nlm.exclusive : 0);
}
