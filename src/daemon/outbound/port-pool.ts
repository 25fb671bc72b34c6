// The fake peer's ports. First in, first out: with 64,512 ports and 10,000 flows a port rests as long as possible
// before its next use, past the listener's TIME_WAIT (60 s) up to a thousand new connections a second. When it comes
// back sooner the kernel answers the SYN with a challenge, and the program's retransmitted SYN goes through.

const firstPort = 1024;
const portCount = 65_536 - firstPort;

export class PortPool {
  /** 0 where nobody has had the port of that place yet. */
  readonly #ring = new Uint16Array(portCount);
  #head = 0;
  #free = portCount;

  take(): number | undefined {
    if (this.#free === 0) return undefined;
    const port = this.#ring[this.#head] || firstPort + this.#head;
    this.#head = (this.#head + 1) % portCount;
    this.#free--;
    return port;
  }
  /** Must have come from take(). */
  give(port: number): void {
    this.#ring[(this.#head + this.#free) % portCount] = port;
    this.#free++;
  }
}
