#!/usr/bin/env python3
"""Many DHCPv6 clients on one link, by raw datagrams: they come, extend, go, and never rest.

Run in a host's namespace: `dhcpclients.py INTERFACE COUNT SEED`. Each event is a line on standard output, written before what
it announces is sent:

    {"told": client, "address": ..., "until": ...}   the client may use the address until then (CLOCK_REALTIME)
    {"gives": client}                                 the client stops using what it has, and is about to say so

It ends by itself, with exit status 1 and a line {"twice": ...}, when one address is told to two clients.
"""

import json
import random
import select
import signal
import socket
import struct
import sys
import time

SOLICIT, ADVERTISE, REQUEST, RENEW, REBIND, REPLY, RELEASE, DECLINE = 1, 2, 3, 5, 6, 7, 8, 9
CLIENT_ID, SERVER_ID, IA_NA, IA_ADDRESS, STATUS, RAPID_COMMIT = 1, 2, 3, 5, 13, 14
ALL_SERVERS = "ff02::1:2"
RETRY_S = 1.0


def option(code, data=b""):
    return struct.pack("!HH", code, len(data)) + data


def options(data):
    while len(data) >= 4:
        code, length = struct.unpack("!HH", data[:4])
        yield code, data[4 : 4 + length]
        data = data[4 + length :]


class Client:
    """One client: a DUID, an association, and what it is after."""

    def __init__(self, number):
        self.duid = struct.pack("!HHIH", 3, 1, 0x02000000 + number, number)
        self.iaid = number
        self.address = self.server = self.asked = None
        self.transaction = self.at = 0

    @property
    def name(self):
        return f"{self.duid.hex()}/{self.iaid}"

    def message(self, kind, address=None, rapid=False):
        self.asked, self.transaction = kind, random.getrandbits(24)
        data = struct.pack("!I", kind << 24 | self.transaction) + option(CLIENT_ID, self.duid)
        if kind in (REQUEST, RENEW, RELEASE, DECLINE):
            data += option(SERVER_ID, self.server)
        if rapid:
            data += option(RAPID_COMMIT)
        named = option(IA_ADDRESS, socket.inet_pton(socket.AF_INET6, address) + bytes(8)) if address else b""
        return data + option(IA_NA, struct.pack("!III", self.iaid, 0, 0) + named)


class Crowd:
    """All clients, one socket."""

    def __init__(self, interface, count):
        self.clients = [Client(number) for number in range(1, count + 1)]
        self.waiting = {}
        self.history = {}
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        index = socket.if_nametoindex(interface)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        self.socket.bind(("::", 546))
        self.target = (ALL_SERVERS, 547, 0, index)

    def send(self, client, *arguments, **options):
        self.waiting.pop(client.transaction, None)
        data = client.message(*arguments, **options)
        self.waiting[client.transaction] = client
        client.at = time.monotonic() + RETRY_S
        try:
            self.socket.sendto(data, self.target)
        except OSError:
            pass  # The link is down for a moment; the client asks again.

    def act(self, client):
        """The client does what comes to its mind."""
        if client.address is None:
            if client.server is None or random.random() < 0.7:
                return self.send(client, SOLICIT, rapid=random.random() < 0.5)
            return self.send(client, REQUEST)
        mind = random.random()
        if mind < 0.6:
            return self.send(client, RENEW if random.random() < 0.7 else REBIND, client.address)
        say({"gives": client.name})
        address, client.address = client.address, None
        return self.send(client, RELEASE if mind < 0.9 else DECLINE, address)

    def hear(self, data):
        if len(data) < 4:
            return
        head = struct.unpack("!I", data[:4])[0]
        kind, client = head >> 24, self.waiting.pop(head & 0xFFFFFF, None)
        if client is None or kind not in (ADVERTISE, REPLY):
            return
        found = list(options(data[4:]))
        client.server = next((value for code, value in found if code == SERVER_ID), client.server)
        addresses = []
        for _, value in (item for item in found if item[0] == IA_NA):
            for code, inner in options(value[12:]):
                if code == IA_ADDRESS and struct.unpack("!I", inner[20:24])[0] > 0:
                    addresses.append((socket.inet_ntop(socket.AF_INET6, inner[:16]), struct.unpack("!I", inner[20:24])[0]))
        if kind == ADVERTISE and addresses:
            return self.send(client, REQUEST, addresses[0][0])
        if kind == REPLY and client.asked in (SOLICIT, REQUEST, RENEW, REBIND):
            for address, valid in addresses:
                owner = self.history.setdefault(address, client.name)
                if owner != client.name:
                    say({"twice": address, "clients": [owner, client.name]})
                    sys.exit(1)
                client.address = address
                say({"told": client.name, "address": address, "until": time.time() + valid})
        client.at = time.monotonic() + random.uniform(0.02, 0.6)
        return None

    def run(self):
        for client in self.clients:
            client.at = time.monotonic() + random.uniform(0, 1)
        while True:
            if select.select([self.socket], [], [], 0.005)[0]:
                self.hear(self.socket.recv(2048))
                continue
            now = time.monotonic()
            for client in self.clients:
                if client.at <= now:
                    self.act(client)


def say(event):
    print(json.dumps(event), flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    interface, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    Crowd(interface, count).run()


if __name__ == "__main__":
    main()
