"""The host on a wire: packet sockets, the clock, and orders as JSON lines on standard input.

Every line out is an event (`{"event": …}`) or the answer to an order (`{"reply": …}`); every line in is an order
(`{"do": …}`), one of the methods `do_…` below. Rules make the host deaf or mute where a test wants a path to fail.
"""

import dataclasses
import json
import os
import select
import socket
import sys
import time
from ipaddress import IPv6Address

from . import identity, wire
from .host import Host
from .tun import MARK, SO_MARK, Tun

ETH_IPV6, HEADER_INCLUDED, OUTGOING = 0x86DD, 36, 4


class Node:
    def __init__(self, host_options, me, tun=None, through=()):
        """With `tun`, (name, port), sessions of the kernel with addresses in the prefixes `through` use the shim."""
        # The open raw socket keeps the kernel from answering next header 140 with a Parameter Problem.
        self.silencer = socket.socket(socket.AF_INET6, socket.SOCK_RAW, wire.SHIM6)
        self.sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.sender.setsockopt(socket.IPPROTO_IPV6, HEADER_INCLUDED, 1)
        self.listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_IPV6))
        self.tun = None
        self.rules = []
        self.input = b""
        self.host = Host(me, self.transmit, self.tell, **host_options)
        self.mine = {*me.addresses, *self.host.spare}
        if tun:
            name, port = tun
            self.sender.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
            self.listener.bind((port, ETH_IPV6))
            self.tun = Tun(name, self.host.ulid, through)
            self.host.stack = self.tun.write
        self.started = time.monotonic()

    def close(self):
        """Takes back what was changed in the kernel."""
        if self.tun:
            self.tun.close()
            self.tun = None

    def run(self):
        self.tell("ready", ulid=self.host.ulid, addresses=self.host.addresses)
        while True:
            deadline = self.host.deadline()
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            sources = [sys.stdin, self.listener, self.silencer, *([self.tun] if self.tun else [])]
            ready, _, _ = select.select(sources, [], [], wait)
            if self.silencer in ready:
                # Read and forgotten: once its buffer is full the kernel answers for us after all.
                self.silencer.recv(65535)
            if self.listener in ready:
                self.receive()
            if self.tun in ready:
                for octets in self.tun.read():
                    self.host.session(time.monotonic(), octets)
            if sys.stdin in ready and not self.read_orders():
                return
            self.host.expire(time.monotonic())

    # --- packets ------------------------------------------------------------------------------------------------

    def receive(self):
        octets, address = self.listener.recvfrom(65535)
        if address[2] == OUTGOING or len(octets) < 40:
            return
        if IPv6Address(octets[24:40]) in self.mine and not self.dropped("in", octets):
            self.host.packet(time.monotonic(), octets)

    def transmit(self, octets):
        if not self.dropped("out", octets):
            self.sender.sendto(octets, (str(IPv6Address(octets[24:40])), 0))

    def dropped(self, way, octets):
        """Whether a rule takes this packet away: {"way", "message", "local", "peer", "count"}, all but way optional."""
        kind = None
        if octets[6] == wire.SHIM6 and len(octets) > 43:
            kind = "payload" if octets[42] & 0x80 else wire.NAMES.get(octets[42] & 0x7F)
        source, destination = str(IPv6Address(octets[8:24])), str(IPv6Address(octets[24:40]))
        local, peer = (destination, source) if way == "in" else (source, destination)
        for rule in self.rules:
            told = {"way": way, "message": kind, "local": local, "peer": peer}
            if rule.get("count", 1) > 0 and all(rule.get(name, value) == value for name, value in told.items()):
                if "count" in rule:
                    rule["count"] -= 1
                self.tell("dropped", **told)
                return True
        return False

    # --- events and orders --------------------------------------------------------------------------------------

    def tell(self, event, **fields):
        self.write({"event": event, "t": round(time.monotonic() - getattr(self, "started", 0), 4), **fields})

    def write(self, line):
        sys.stdout.write(json.dumps(line, default=plain) + "\n")
        sys.stdout.flush()

    def read_orders(self):
        """Carries out the orders that have arrived. False at the end of input."""
        more = os.read(sys.stdin.fileno(), 65536)
        *lines, self.input = (self.input + more).split(b"\n")
        for line in lines:
            order = json.loads(line)
            try:
                reply = getattr(self, "do_" + order.pop("do"))(**order)
            except (AttributeError, TypeError, ValueError, LookupError, identity.Unproved) as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            self.write({"reply": reply})
        return bool(more)

    def context(self, peer=None, fork=0):
        for context in self.host.contexts:
            if (peer is None or str(context.peer) == peer) and context.fork == fork:
                return context
        raise LookupError(f"no context with {peer}")

    def do_open(self, peer, locator, source=None, fork=0, tag=None):
        source = IPv6Address(source) if source else self.host.addresses[0]
        context = self.host.open(time.monotonic(), IPv6Address(peer), source, IPv6Address(locator), fork, tag)
        return {"tag": context.local_tag}

    def do_contexts(self):
        return [self.shown(context) for context in self.host.contexts]

    def shown(self, context):
        return {
            "ulids": (context.local, context.peer), "fork": context.fork, "state": context.state,
            "local_tag": context.local_tag, "peer_tag": context.peer_tag, "pair": context.pair,
            "locals": context.reap.locals, "peers": context.reap.peers, "reap": wire.STATE_NAMES[context.reap.state],
            "visited": sorted(wire.STATE_NAMES[state] for state in context.reap.visited),
            "keepalive_timeout": context.reap.keepalive_timeout,
        }  # fmt: skip

    def do_forget(self):
        """Loses all contexts, as a crash would; the tags the peer still sends to are no fault of its own."""
        self.host.foreign_tags.update(context.peer_tag for context in self.host.contexts)
        self.host.contexts.clear()

    def do_set(self, **values):
        """answer, echoes."""
        for name, value in values.items():
            if name not in ("answer", "echoes"):
                raise ValueError(name)
            setattr(self.host, name, value)

    def do_counts(self):
        return self.host.counts

    def do_rules(self, rules):
        self.rules = rules

    def do_echo(self, sequence, peer=None, fork=0, size=16, number=7):
        self.host.now = time.monotonic()
        self.host.send_echo(self.context(peer, fork), number, sequence, bytes(index & 255 for index in range(size)))

    def do_udp(self, source, destination, octets, peer=None, fork=0):
        self.host.now = time.monotonic()
        self.host.send_udp(self.context(peer, fork), source, destination, bytes.fromhex(octets))

    def do_move(self, local, peer_locator, peer=None):
        """Changes the current pair without asking anybody."""
        self.context(peer).reap.pair = IPv6Address(local), IPv6Address(peer_locator)

    def do_explore(self, peer=None):
        """As if our Send Timer had run out."""
        self.context(peer).reap.send_at = time.monotonic()

    def do_update(self, locators=None, methods=None, preferences=None, generation=None, pds=False, spoil=False,
                  timeout=None, peer=None):  # fmt: skip
        """Sends an Update Request. `spoil` breaks the signature; `generation` is for the preferences."""
        host, options = self.host, []
        if locators is not None:
            host.generation = (host.generation + 1) & 0xFFFFFFFF
            addresses = [IPv6Address(locator) for locator in locators]
            options.append(wire.locator_list(host.generation, addresses, methods))
            signed = [address for address, method in zip(addresses, methods) if method == wire.CGA]
            if signed:
                signature = host.me.sign(host.generation, signed)
                if spoil:
                    signature = signature[:-1] + bytes((signature[-1] ^ 1,))
                options.append(wire.option(wire.SIGNATURE, signature))
            if not spoil:
                host.addresses, host.methods = addresses, methods
                context = self.context(peer)
                context.reap.locators(addresses, context.reap.peers)
        if preferences is not None:
            elements = [bytes.fromhex(element) for element in preferences]
            options.append(wire.preferences(host.generation if generation is None else generation, elements))
        if pds:
            options.append(wire.option(wire.PDS, host.me.pds))
        if timeout is not None:
            options.append(wire.timeout_option(timeout))
        host.send_update(time.monotonic(), self.context(peer), *options)

    def do_abandon(self, peer=None):
        """Gives up an Update Request that was refused."""
        self.context(peer).update = None

    def do_raw(self, octets, source, destination):
        """Sends these octets behind an IPv6 header, right or wrong."""
        packet = wire.ipv6(IPv6Address(source), IPv6Address(destination), wire.SHIM6, bytes.fromhex(octets))
        self.transmit(packet)


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
