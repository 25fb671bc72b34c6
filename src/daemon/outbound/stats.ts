// What outbound counts: everything that it dropped, refused or could not do has a number here, shown by status.

export interface OutboundStats {
  /** Packets from the device, and to it. */
  packetsIn: number;
  packetsOut: number;
  /** The device's queue was full; TCP sends again, a datagram is lost. */
  packetsNotWritten: number;
  malformed: number;
  /** Multicast, broadcast, and what is for the device's own network. */
  ignored: number;
  otherProtocol: number;
  echoRequests: number;
  echoReplies: number;
  /** Requests that nobody could be asked for, or whose flow had no room. */
  echoDropped: number;
  /** Errors that were told, and those beyond what is told in a second. */
  icmpErrors: number;
  icmpErrorsHeldBack: number;
  fragments: number;
  tcpHeld: number;
  tcpOpened: number;
  tcpRefused: number;
  /** Held SYNs that ended without an answer (time-out, busy, given up). */
  tcpSilent: number;
  /** Segments of connections that nobody knows, answered by a reset. */
  tcpStray: number;
  /** SYNs dropped because every place was taken. */
  tcpTableFull: number;
  /** Released SYNs that never reached the listener: what a host firewall looks like. */
  tcpNotAccepted: number;
  /** Connections to the listener that the redirect did not send. */
  tcpStrangers: number;
  udpOpened: number;
  udpRefused: number;
  udpDropped: number;
  tcpFlows: number;
  udpFlows: number;
  echoFlows: number;
}

export function createStats(): OutboundStats {
  return {
    packetsIn: 0,
    packetsOut: 0,
    packetsNotWritten: 0,
    malformed: 0,
    ignored: 0,
    otherProtocol: 0,
    echoRequests: 0,
    echoReplies: 0,
    echoDropped: 0,
    icmpErrors: 0,
    icmpErrorsHeldBack: 0,
    fragments: 0,
    tcpHeld: 0,
    tcpOpened: 0,
    tcpRefused: 0,
    tcpSilent: 0,
    tcpStray: 0,
    tcpTableFull: 0,
    tcpNotAccepted: 0,
    tcpStrangers: 0,
    udpOpened: 0,
    udpRefused: 0,
    udpDropped: 0,
    tcpFlows: 0,
    udpFlows: 0,
    echoFlows: 0,
  };
}
