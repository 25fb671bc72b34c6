// Bounds of PROTOCOL §7. "protocol": both ends rely on it; "chosen": this implementation's own.

/** protocol: largest payload of one frame; longer is a protocol error. */
export const maxFramePayloadBytes = 256 * 1024;
/** protocol: largest HELLO body. */
export const maxHelloBytes = 16 * 1024;
/** protocol: largest OPEN, REJECT or RESET body. */
export const maxOpenBytes = 8 * 1024;
/** protocol: bytes an end may send on a new stream before any CREDIT arrives; small, since nobody can refuse them. */
export const initialWindowBytes = 2 * 1024;
/** chosen: widest window that is given to a stream whose reader is quick, on a way that is short. */
export const shortWayWindowBytes = 1024 * 1024;
/** chosen: the same on the longest: 0.5 Gbit/s at a round trip of 100 ms. */
export const maxWindowBytes = 8 * 1024 * 1024;
/** protocol: largest datagram carried (UDP payload of an IPv4 packet). */
export const maxDatagramBytes = 65_507;
/** chosen: most streams open at once on a laptop's link; further OPENs are rejected as `busy`. */
export const maxStreams = 12_000;
/** chosen: the same on an agent's link: the callers of one pod. */
export const maxAgentStreams = 4000;
/** chosen: bytes that wait for readers, over all streams of a link, at the laptop: a process with memory to spare. */
export const laptopBudgetBytes = 64 * 1024 * 1024;
/** chosen: the same at the manager for a laptop's link: one of several. */
export const managerBudgetBytes = 64 * 1024 * 1024;
/** chosen: what all laptops' links together are lent of that, a quarter of what the manager's pod may hold. */
export const managerPoolBytes = 128 * 1024 * 1024;
/** chosen: the same at both ends of an agent's link: an agent shares its pod's memory, and the manager has many. */
export const agentBudgetBytes = 16 * 1024 * 1024;
/** chosen: datagrams waiting for the transport, bytes a session; the oldest are dropped and counted. */
export const maxQueuedDatagramBytes = 1024 * 1024;
/** chosen: largest JSON-RPC message. */
export const maxRpcMessageBytes = 4 * 1024 * 1024;
/** protocol: each end sends PING when it has sent nothing for this long (DESIGN §5). */
export const heartbeatMs = 2000;
/** protocol: a link that heard nothing for this long is lost. */
export const linkSilenceMs = 5000;
/** chosen: HELLO must be complete within this. */
export const helloTimeoutMs = 5000;
/** chosen: how long the far end may take to connect a stream before the opener gives up. */
export const openTimeoutMs = 30_000;
/** chosen: bytes not yet acknowledged that are kept for the next transport: 0.6 Gbit/s at a round trip of 100 ms. */
export const maxUnacknowledgedBytes = 8 * 1024 * 1024;
/** chosen: the same at the manager for all laptops that are away, together; those away longest make room. */
export const managerKeptBytes = 128 * 1024 * 1024;
/** protocol: how long callers' connections stand still while their laptop's link is lost (DESIGN §5). */
export const inboundHoldMs = 120_000;
