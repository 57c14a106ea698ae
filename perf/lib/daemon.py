"""A real `pshim6d` at full load: devices that replay captures as fast as they are asked, and very many contexts in its tables.

The captures have frames of the first contexts, both ways, and now and then an answer to neighbour discovery by the provider's
router and by each host, so that the box knows where to send. What the worker sends goes nowhere.
"""

import http.client
import ipaddress
import json
import os
import random
import socket
import struct
import subprocess
import time
from pathlib import Path

from .programs import BUILT, Failed, ahead

HOSTS = 16
FRAMES = 1 << 16
HOST_MAC, ROUTER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
# What the devices of the box are told to have.
MACS = {"lan": bytes.fromhex("020000000010"), "x": bytes.fromhex("020000000011"), "y": bytes.fromhex("020000000012")}
ROUTER = ipaddress.IPv6Address("2001:db8:a1:ffff::1")
OWN, OWN_INSIDE = ipaddress.IPv6Address("2001:db8:a1:ffff::2"), ipaddress.IPv6Address("fc00:a:0:1::1")
UDP, ICMPV6, SHIM6 = 17, 58, 140

CONFIG = """[box]
name = "box"
workers = 1
cores = [{core}]
idle = "poll"
# Nothing is held here: this makes the pool large enough for captures, whose every frame keeps a buffer.
hold = {{ packets = 32, pairs = 5120 }}
contexts_max = {room}
control_socket = "{folder}/control.sock"
log = "warn"

[eal]
memory_mb = 1024

[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"

[[port]]
name = "lan"
device = "net_pcap0,rx_pcap={folder}/out.pcap,infinite_rx=1"
addresses = ["{inside}/64"]
mac = "{lan}"

[[port]]
name = "x"
device = "net_pcap1,rx_pcap={folder}/in.pcap,infinite_rx=1"
addresses = ["{own}/64"]
mac = "{x}"

[[port]]
name = "y"
device = "net_null2,no-rx=1"
addresses = ["2001:db8:a2:ffff::2/64"]
mac = "{y}"

[[provider]]
name = "x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "{router}"

[[provider]]
name = "y"
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "2001:db8:a2:ffff::1"

[shim6]
idle_context_s = 3600
"""


class Daemon:
    """The box, in a folder of its own."""

    def __init__(self, folder, contexts, core):
        self.folder, self.contexts = Path(folder), contexts
        self.config = self.folder / "site.toml"
        macs = {name: text(mac) for name, mac in MACS.items()}
        room = contexts + 100_000
        self.config.write_text(CONFIG.format(core=core, room=room, folder=folder, own=OWN, inside=OWN_INSIDE, router=ROUTER, **macs))
        hosts = [json.loads(self.ctl("host", "add", f"h{number}", "--json")) for number in range(HOSTS)]
        file = self.folder / "hosts.json"
        listed = json.loads(file.read_text())
        for host in listed["hosts"]:
            host["mac"] = text(HOST_MAC)
        file.write_text(json.dumps(listed))
        # The example takes them in the order of the file.
        named = {host["name"]: host for host in hosts}
        write_captures(self.folder, [named[host["name"]] for host in listed["hosts"]], min(contexts, FRAMES))
        self.process = None

    def __enter__(self):
        """Starts it as the successor of a process that had so many contexts."""
        macs = [f"--mac={text(mac)}" for mac in MACS.values()]
        command = [BUILT / "examples" / "predecessor", "--config", self.config, "--contexts", str(self.contexts), *macs]
        old = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        if old.stdout.readline() != "waiting\n":
            raise Failed("nobody gives way")
        began = time.monotonic()
        self.log = open(self.folder / "log", "wb")
        words = [BUILT / "pshim6d", "--config", self.config, "--take-over"]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=ahead)
        try:
            if old.wait(timeout=300) != 0:
                raise Failed(f"the box did not take over:\n{self.said()}")
            self.took = round(time.monotonic() - began, 1)
            # Only the worker goes before others: what reloads and answers shares its core with who asks.
            os.setpriority(os.PRIO_PROCESS, self.process.pid, 0)
            self.wait_translating()
        except BaseException:
            old.kill()
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def said(self):
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def wait_translating(self):
        """Until the provider's router is known and nothing is dropped any more."""
        deadline = time.monotonic() + 60
        while True:
            try:
                before = self.load()
                time.sleep(0.3)
                if not (lost := lost_between(before, self.load())):
                    return
            except (Failed, OSError) as error:
                lost = error
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the box drops what it should translate: {lost}\n{self.said()}")

    def ctl(self, *words):
        done = subprocess.run([str(BUILT / "pshim6ctl"), "--config", str(self.config), *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"pshim6ctl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def load(self):
        """What the box counted until now: frames in and out of each port, and what was dropped, by reason."""
        counters = json.loads(self.ctl("counters", "--all", "--json"))
        ports = json.loads(self.ctl("status", "--json"))["ports"]
        return {"at": time.monotonic(), "counters": counters.get("counters", counters), "ports": ports}

    def turns(self):
        """How many turns of the worker took at most so many seconds: bound -> number."""
        plain = http.client.HTTPConnection("box")
        plain.sock = socket.socket(socket.AF_UNIX)
        plain.sock.connect(str(self.folder / "control.sock"))
        plain.request("GET", "/metrics")
        answer = plain.getresponse().read().decode()
        plain.close()
        lines = [line for line in answer.splitlines() if line.startswith("pshim6_worker_turn_seconds_bucket")]
        if not lines:
            raise Failed(f"no turns in the metrics: {answer[:200]}")
        return {line.split('le="')[1].split('"')[0]: int(float(line.split()[-1])) for line in lines}


def lost_between(before, after):
    """Frames of hosts and peers that came in and did not go out, by reason."""
    grew = {name: value - before["counters"].get(name, 0) for name, value in after["counters"].items() if name.startswith("drop_")}
    for field in ("rx_missed", "tx_dropped"):
        grew[field] = sum(port[field] for port in after["ports"]) - sum(port[field] for port in before["ports"])
    return {name: more for name, more in grew.items() if more}


# --- frames ----------------------------------------------------------------------------------------------------------


def write_captures(folder, hosts, frames):
    """What hosts send, and what comes back, in random order."""
    chance = random.Random(1)
    order = chance.sample(range(frames), frames)
    with open(folder / "out.pcap", "wb") as out, open(folder / "in.pcap", "wb") as back:
        for file in (out, back):
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for place, number in enumerate(order):
            host = hosts[number % len(hosts)]
            ulid, locator = (ipaddress.IPv6Address(address).packed for address in (host["ulid"], host["locators"][0]))
            # As the example makes them.
            peer = (0xFD99 << 112 | (number + 1)).to_bytes(16, "big")
            there = (0x20010DB8F000 << 80 | (number >> 6) << 64 | (number + 1)).to_bytes(16, "big")
            record(out, "lan", HOST_MAC, ipv6(UDP, ulid, peer, udp(ulid, peer)))
            payload = bytes([UDP, 0]) + (1 << 47 | number).to_bytes(6, "big") + udp(peer, ulid)
            record(back, "x", ROUTER_MAC, ipv6(SHIM6, there, locator, payload))
            if place % (frames // len(hosts)) == 0:
                of_turn = hosts[place // (frames // len(hosts)) % len(hosts)]["ulid"]
                record(out, "lan", HOST_MAC, advertisement(ipaddress.IPv6Address(of_turn), HOST_MAC, OWN_INSIDE, 0x6))
                record(back, "x", ROUTER_MAC, advertisement(ROUTER, ROUTER_MAC, OWN, 0xE))


def record(file, port, sender, packet):
    frame = MACS[port] + sender + b"\x86\xdd" + packet
    file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def ipv6(header, source, destination, payload, hops=64):
    return struct.pack(">IHBB", 6 << 28, len(payload), header, hops) + source + destination + payload


def udp(source, destination):
    head = struct.pack(">HHHH", 4000, 4000, 16, 0) + bytes(8)
    check = checksum(UDP, source, destination, head) or 0xFFFF
    return head[:6] + struct.pack(">H", check) + head[8:]


def advertisement(target, mac, asker, flags):
    """A neighbour advertisement (RFC 4861 §4.4); of its flags the first four bits."""
    body = struct.pack(">BBHI", 136, 0, 0, flags << 28) + target.packed + bytes([2, 1]) + mac
    check = checksum(ICMPV6, target.packed, asker.packed, body)
    return ipv6(ICMPV6, target.packed, asker.packed, body[:2] + struct.pack(">H", check) + body[4:], hops=255)


def checksum(header, source, destination, payload):
    """RFC 8200 §8.1, with the field itself zero."""
    octets = source + destination + struct.pack(">II", len(payload), header) + payload
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def text(mac):
    return ":".join(f"{octet:02x}" for octet in mac)
