// nftables rules as netlink attributes; pure. A rule is a list of expressions that run in order: load something into
// register 1, compare, and at the end do something. The kernel's names and numbers are linux/netfilter/nf_tables.h.
// Every number in an attribute is big-endian, and so are the packet fields compared with.
import type { IpAddress } from "#packet/address.ts";
import type { NetlinkWriter } from "./netlink.ts";

/** Writes one expression into a rule. */
export type Expression = (writer: NetlinkWriter) => void;
export type Rule = readonly Expression[];

const listElement = 1;
const expressionName = 1;
const expressionData = 2;
const register1 = 1;
const registerVerdict = 0;
const verdictAccept = 1;
const dataValue = 1;
const dataVerdict = 2;
const comparison = { equal: 0, notEqual: 1, lessOrEqual: 3 } as const;
const payloadBase = { network: 1, transport: 2 } as const;
const metaKey = { mark: 3, iifname: 6, nfproto: 15, l4proto: 16 } as const;
const ctKey = { state: 0, mark: 3, zone: 17 } as const;
const directionOriginal = 0;
const ctStateInvalid = 1;
const redirectToPort = 0x2; // NF_NAT_RANGE_PROTO_SPECIFIED

export const protocol = { tcp: 6, udp: 17 } as const;
const tcpFlagsOffset = 13;
const tcpFlag = { fin: 0x01, syn: 0x02, rst: 0x04, ack: 0x10 } as const;

/** Adds the rule's expressions as the value of NFTA_RULE_EXPRESSIONS. */
export function writeExpressions(writer: NetlinkWriter, rule: Rule): void {
  for (const expression of rule) writer.nested(listElement, expression);
}

/**
 * A pod's traffic to `port` goes to the agent on `agentPort`, from each connection's first packet on and never in the
 * middle of one: conntrack would take up an older connection as new, and reset it (DESIGN 14).
 *
 *   iifname != "lo" tcp dport PORT tcp flags & (syn|ack|fin|rst) == syn redirect to :AGENTPORT
 */
export function firstSynRedirect(port: number, agentPort: number): Rule {
  const { fin, syn, rst, ack } = tcpFlag;
  return [
    ...notFromLoopback(),
    ...transportIs(protocol.tcp),
    ...portIs("destination", port),
    loadPayload(payloadBase.transport, tcpFlagsOffset, 1),
    mask(Uint8Array.of(syn | ack | fin | rst)),
    compare(Uint8Array.of(syn)),
    ...redirectTo(agentPort),
  ];
}

/**
 * A pod's datagrams to `port` go to the agent on `agentPort`. UDP has no first packet to tell apart: a flow that
 * conntrack does not know yet is sent over as a whole.
 *
 *   iifname != "lo" udp dport PORT redirect to :AGENTPORT
 */
export function udpRedirect(port: number, agentPort: number): Rule {
  return [...notFromLoopback(), ...transportIs(protocol.udp), ...portIs("destination", port), ...redirectTo(agentPort)];
}

/**
 * Matches next to nothing and keeps conntrack and NAT registered: what connections opened through a redirect need
 * until they end (DESIGN 14).
 *
 *   ct state invalid counter
 */
export function inertRule(): Rule {
  return [
    expression("ct", (data) => data.be32(1, register1).be32(2, ctKey.state)),
    mask(hostOrder(ctStateInvalid)),
    compare(new Uint8Array(4), comparison.notEqual),
    expression("counter", () => undefined),
  ];
}

/**
 * Connections that a program of this namespace opens in another's name, told apart by their packets' mark. The one
 * chain runs before conntrack, the other behind it and looks the way up again.
 *
 *   meta mark MARK ct original zone set ZONE
 *
 *   meta mark MARK ct mark set MARK
 *   ct mark MARK meta mark set MARK
 */
export interface MarkedConnections {
  readonly mark: number;
  readonly zone: number;
}

/**
 * The connection of which this one is the second half has the same addresses and ports in conntrack. In a zone of its
 * own for the first direction only it is another, while its answers, which nobody has marked yet, are found.
 */
export function ownZone({ mark, zone }: MarkedConnections): Rule {
  const number = new Uint8Array(new Uint16Array([zone]).buffer);
  return [
    ...markIs(mark),
    loadImmediate(number),
    expression("ct", (data) => data.be32(2, ctKey.zone).u8(3, directionOriginal).be32(4, register1)),
  ];
}

/** The answers get the mark that their connection's opener set. */
export function markAnswers({ mark }: MarkedConnections): readonly Rule[] {
  const value = hostOrder(mark);
  return [
    [...markIs(mark), loadImmediate(value), expression("ct", (data) => data.be32(2, ctKey.mark).be32(4, register1))],
    [
      expression("ct", (data) => data.be32(1, register1).be32(2, ctKey.mark)),
      compare(value),
      loadImmediate(value),
      expression("meta", (data) => data.be32(2, metaKey.mark).be32(3, register1)),
    ],
  ];
}

/** What the laptop's programs ask `nameservers` goes to `port`. */
export interface DnsRedirect {
  readonly nameservers: readonly IpAddress[];
  readonly port: number;
  /** The connection's. Redirects stand one behind the other, the highest slot's first. */
  readonly slot: number;
}

/**
 * Four bits of the packet's mark, for the slot whose daemon has forwarded it; the others stay as they are. Chosen: bits
 * that Docker, Kubernetes' proxies and CNIs leave alone. VPNs that mark their own packets with a whole number (wg-quick's
 * 0xca6c) have some of them: more than the first five slots'.
 */
const slotBits = 0xf0;
const nameserverPort = 53;
const markOf = (slot: number): number => (slot + 1) << 4;

/**
 * Packets that the daemon of this slot sends to nameservers, told by the ports that it has for this, carry its slot. Others'
 * packets to elsewhere, which the kernel may give such a port of TCP, keep their mark:
 *
 *   udp sport UPSTREAM udp dport 53 meta mark set meta mark & ~0xf0 ^ SLOT  (a rule for each such port and protocol)
 */
export function markForwarded(upstreamSourcePorts: readonly number[], slot: number): readonly Rule[] {
  return upstreamSourcePorts.flatMap((port) =>
    [protocol.udp, protocol.tcp].map((number) => [
      ...transportIs(number),
      ...portIs("source", port),
      ...portIs("destination", nameserverPort),
      loadMeta(metaKey.mark),
      mask(hostOrder(~slotBits >>> 0), hostOrder(markOf(slot))),
      expression("meta", (data) => data.be32(2, metaKey.mark).be32(3, register1)),
    ]),
  );
}

/**
 * Past what this slot or a lower one has forwarded: that has been here, or has been where it would lead.
 *
 *   meta mark & 0xf0 != 0 meta mark & 0xf0 <= SLOT accept
 *   ip daddr NAMESERVER udp dport 53 redirect to :PORT  (a rule for each nameserver and protocol)
 */
export function dnsRedirect(redirect: DnsRedirect): readonly Rule[] {
  // Compared byte by byte, of which one is not 0, so in either byte order.
  const forwarded: Rule = [
    loadMeta(metaKey.mark),
    mask(hostOrder(slotBits)),
    compare(hostOrder(0), comparison.notEqual),
    compare(hostOrder(markOf(redirect.slot)), comparison.lessOrEqual),
    accept(),
  ];
  const caught = redirect.nameservers.flatMap((address) =>
    [protocol.udp, protocol.tcp].map((number) => [
      ...destinationIs(address),
      ...transportIs(number),
      ...portIs("destination", nameserverPort),
      ...redirectTo(redirect.port),
    ]),
  );
  return [forwarded, ...caught];
}

function destinationIs(address: IpAddress): Rule {
  const isIpv4 = address.length === 4;
  return [
    loadMeta(metaKey.nfproto),
    compare(Uint8Array.of(isIpv4 ? 2 : 10)),
    loadPayload(payloadBase.network, isIpv4 ? 16 : 24, address.length),
    compare(address),
  ];
}

function transportIs(number: number): Rule {
  return [loadMeta(metaKey.l4proto), compare(Uint8Array.of(number))];
}

function portIs(end: "source" | "destination", port: number): Rule {
  return [loadPayload(payloadBase.transport, end === "source" ? 0 : 2, 2), compare(portBytes(port))];
}

function notFromLoopback(): Rule {
  const name = new Uint8Array(16);
  name.set(Buffer.from("lo"));
  return [loadMeta(metaKey.iifname), compare(name, comparison.notEqual)];
}

function redirectTo(port: number): Rule {
  const setPort = loadImmediate(portBytes(port));
  const redirect = expression("redir", (data) => data.be32(1, register1).be32(2, register1).be32(3, redirectToPort));
  return [setPort, redirect];
}

function accept(): Expression {
  return expression("immediate", (data) =>
    data
      .be32(1, registerVerdict)
      .nested(2, (value) => value.nested(dataVerdict, (verdict) => verdict.be32(1, verdictAccept))),
  );
}

function markIs(mark: number): Rule {
  return [loadMeta(metaKey.mark), compare(hostOrder(mark))];
}

function loadImmediate(value: Uint8Array): Expression {
  return expression("immediate", (data) =>
    data.be32(1, register1).nested(2, (nested) => nested.attribute(dataValue, value)),
  );
}

function loadMeta(key: number): Expression {
  return expression("meta", (data) => data.be32(1, register1).be32(2, key));
}

function loadPayload(base: number, offset: number, length: number): Expression {
  return expression("payload", (data) => data.be32(1, register1).be32(2, base).be32(3, offset).be32(4, length));
}

/** `value & bits ^ set`. */
function mask(bits: Uint8Array, set: Uint8Array = new Uint8Array(bits.length)): Expression {
  return expression("bitwise", (data) =>
    data
      .be32(1, register1)
      .be32(2, register1)
      .be32(3, bits.length)
      .nested(4, (value) => value.attribute(dataValue, bits))
      .nested(5, (value) => value.attribute(dataValue, set)),
  );
}

function compare(value: Uint8Array, operation: number = comparison.equal): Expression {
  return expression("cmp", (data) =>
    data
      .be32(1, register1)
      .be32(2, operation)
      .nested(3, (nested) => nested.attribute(dataValue, value)),
  );
}

function expression(name: string, fill: (data: NetlinkWriter) => void): Expression {
  return (writer) => {
    writer.text(expressionName, name).nested(expressionData, fill);
  };
}

function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >>> 8, port & 0xff);
}

/** Conntrack's state and marks are compared and set in the host's byte order. */
function hostOrder(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}
