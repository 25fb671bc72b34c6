"""echo: sends back what it gets, over TCP and UDP on the same port. A TCP connection may close its sending half and
still gets the rest. On SIGTERM new connections are taken for DRAIN_SECONDS, then open ones have until the kill."""

import asyncio
import os
import signal

PORT = int(os.environ.get("PORT", "7000"))
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS", "2"))


def has_ipv6():
    """Whether the pod has an address of IPv6 that others can reach."""
    with open("/proc/net/if_inet6", encoding="ascii") as lines:
        return any(line.split()[3] == "00" for line in lines)


async def serve(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def main():
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: loop.call_later(DRAIN_SECONDS, ended.set))
    server = await asyncio.start_server(serve, "", PORT, backlog=512)
    await loop.create_datagram_endpoint(Datagrams, local_addr=("::" if has_ipv6() else "0.0.0.0", PORT))
    await ended.wait()
    server.close()


asyncio.run(main())
