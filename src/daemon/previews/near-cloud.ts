// A cloud server on this laptop, to try out: the cluster cannot reach it, so the traffic-manager's tunnel to it comes by
// the laptop. Only to the server that the manager was told of, and only on the loopback.
import { joinDuplex } from "#tunnel/pipe.ts";
import { dial } from "#tunnel/dial.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";

/** Never rejects. */
export async function dialNearCloud(incoming: IncomingStream, url: string, joined: string | undefined): Promise<void> {
  const { protocol, hostname, port, origin } = URL.parse(url) ?? {};
  if (hostname === undefined || origin !== joined || !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)) {
    incoming.reject("denied", `${url} is not a cloud server of this laptop`);
    return;
  }
  const usual = protocol === "https:" ? 443 : 80;
  const target = { address: hostname.replace(/^\[|\]$/g, ""), port: port === "" ? usual : Number(port) };
  try {
    const socket = await dial(target, incoming.signal);
    joinDuplex(incoming.accept(), socket);
  } catch (error) {
    if (!incoming.signal.aborted) incoming.reject(resetReasonOf(error as Error), `nothing listens at ${origin}`);
  }
}
