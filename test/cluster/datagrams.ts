// A program in the cluster that answers datagrams, and TCP on the same number as name servers do; and callers of it.
import * as cluster from "#testbed/cluster.ts";
import { field } from "./lab.ts";

/** Answers datagrams with `app`, the datagram, and where it came from; TCP with `app tcp`. */
const program = `
import socket, threading
tcp = socket.create_server(("", 5300))
def serve():
    while True:
        peer, _ = tcp.accept()
        peer.sendall(b"app tcp")
        peer.close()
threading.Thread(target=serve, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 5300))
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(b"app " + data + b" " + peer[0].encode(), peer)
`;
/** What it runs as: port 5300 of both protocols. */
export const datagramCommand = ["python3", "-u", "-c", program];

/** Sends COUNT datagrams, one after the other, and prints each answer on a line; on one socket, or one each from a port
 * that the kernel chooses, or from ports that were used before. */
const caller = `
import socket, sys
host, port, count, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def fresh(number):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(3)
    if how == "keep": made.bind(("", 40000))
    if how == "used": made.bind(("", 41000 + number))
    return made
one = fresh(0)
for number in range(count):
    if number and how != "keep": one = fresh(number)
    one.sendto(str(number).encode(), (host, port))
    try: print(one.recv(4096).decode())
    except TimeoutError: print("lost")
`;

export type SendingWay = "keep" | "fresh" | "used";

interface Sending {
  readonly namespace: string;
  readonly service: string;
  /** A pod of tools-pod.ts. */
  readonly caller: string;
}

/** The answers to datagrams to port 53 of a service; `lost` for none. */
export async function sendDatagrams(
  { namespace, service, caller: pod }: Sending,
  count: number,
  how: SendingWay,
): Promise<readonly string[]> {
  const host = await field(namespace, `service/${service}`, ".spec.clusterIP");
  const argv = ["exec", "-n", namespace, pod, "--", "python3", "-c", caller, host, "53", String(count), how];
  return (await cluster.kubectl(argv, { timeoutMs: 120_000 })).stdout.trim().split("\n");
}

/** Who answered how many. */
export function countAnswers(answers: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const answer of answers) {
    const who = answer.split(" ")[0] ?? "";
    counts[who] = (counts[who] ?? 0) + 1;
  }
  return counts;
}
