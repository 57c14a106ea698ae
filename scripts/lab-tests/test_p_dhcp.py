#!/usr/bin/env python3
"""Hosts that start with nothing: an address by DHCPv6 from a real client, and leases that outlive `kill -9` of the daemon.

`PSHIM6_DHCP_KILLS` says how often the daemon is killed; 20 if it does not.
"""

import ipaddress
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from common import HERE, SITES, LabTest, box, need_boxes, net, note

A = SITES["a"]
KILLS = int(os.environ.get("PSHIM6_DHCP_KILLS", "20"))
SEED = int(os.environ.get("PSHIM6_DHCP_SEED", "1"))
CONFIG = """
[store]
file = "leases.redb"

[dhcp]
leases_max = 2000
leases_per_source = 2000
dns_servers = ["fc00:a:0:1::1"]
search = ["site.example"]

[ra]
interval_s = 4
"""

# What dhclient's own script does, without touching this machine's resolv.conf.
SCRIPT = """#!/bin/sh
echo "$reason $new_ip6_address $new_dhcp6_name_servers $new_dhcp6_domain_search $new_dhcp6_addrsel" >> FOLDER/log
case "$reason" in
BOUND6|RENEW6|REBIND6) ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
RELEASE6|EXPIRE6|STOP6) ip -6 addr del "$old_ip6_address/128" dev "$interface" ;;
esac
exit 0
"""

# Options that dhclient does not know are made known to it: it asks for them in its ORO and gives their octets to the script.
CONF = """option dhcp6.addrsel code 84 = string;
also request dhcp6.name-servers, dhcp6.domain-search, dhcp6.addrsel;
"""


def selection(text):
    """The flags and rows of an Address Selection option (RFC 7078 section 3) as dhclient shows its octets."""
    octets = bytes(int(pair, 16) for pair in text.split(":"))
    rows, rest = [], octets[1:]
    while rest:
        code, length = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        label, precedence, bits, *prefix = rest[4 : 4 + length]
        assert code == 85 and len(prefix) == (bits + 7) // 8, rest
        rows.append((str(ipaddress.IPv6Address(bytes(prefix).ljust(16, b"\0"))), bits, precedence, label))
        rest = rest[4 + length :]
    return octets[0], rows


def setUpModule():
    need_boxes()


def leases():
    return box.ctl_json(A, "leases")


class BareHost(LabTest):
    """A host without addresses, ISC dhclient on it, and the kernel's own router discovery."""

    options = {"extra": CONFIG}
    node = "a-h2"

    def dhclient(self, *arguments):
        """The command line; without its own script, which would touch this machine's resolv.conf."""
        files = {"-sf": "script", "-lf": "leases", "-pf": "pid", "-cf": "conf"}
        named = [part for flag, name in files.items() for part in (flag, f"{self.folder}/{name}")]
        return ["dhclient", "-6", "-d", *named, *arguments, "eth0"]

    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.folder = self.scratch.name
        script = Path(self.folder, "script")
        script.write_text(SCRIPT.replace("FOLDER", self.folder))
        script.chmod(0o755)
        Path(self.folder, "conf").write_text(CONF)
        ctl = box.ctl_process(A, ["host", "remove", self.node])
        self.assertEqual(ctl.returncode, 0, ctl.stderr)
        conf = "/proc/sys/net/ipv6/conf/eth0"
        lines = ["ip -6 addr flush dev eth0 scope global", f"echo 1 > {conf}/accept_ra"]
        lines += [f"echo 64 > {conf}/accept_ra_rt_info_max_plen", "ip link set eth0 down", "ip link set eth0 up"]
        net.exec_in(self.node, ["sh", "-ec", "\n".join(lines)])

    def routes(self):
        return net.exec_in(self.node, ["ip", "-6", "route"]).stdout

    def bound(self):
        """What dhclient was told: the address, the name server, the search list, address selection."""
        log = Path(self.folder, "log")
        self.wait_until("dhclient has a lease", lambda: log.exists() and "BOUND6" in log.read_text(), 20)
        return next(line for line in log.read_text().splitlines() if line.startswith("BOUND6")).split()[1:]


class RealClient(BareHost):
    def test_a_host_that_starts_with_nothing_talks_to_the_other_site(self):
        # RFC 4861: router, prefix on the link; none to make addresses of.
        self.wait_until("the host has a default route", lambda: "default via fe80::1" in self.routes(), 15)
        self.assertIn("fc00:a:0:1::/64", self.routes())
        self.assertIn("fc00::/8 via fe80::1", self.routes())
        shown = net.exec_in(self.node, ["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"]).stdout
        self.assertEqual(shown.strip(), "", "no address of the host's own making")
        with open(f"{self.folder}/err", "wb") as err:
            running = subprocess.Popen(net.inside(self.node, self.dhclient()), stdout=subprocess.DEVNULL, stderr=err)
        try:
            address, *rest, table = self.bound()
            self.assertEqual(rest, ["fc00:a:0:1::1", "site.example."])
            flags, rows = selection(table)
            self.assertEqual((flags, rows[0]), (3, ("fc00::", 8, 45, 14)), "identifiers come first")
            self.assertIn(("::ffff:0.0.0.0" if sys.version_info >= (3, 13) else "::ffff:0:0", 96, 35, 4), rows)
            self.assertEqual(len(rows), 10)
            [lease] = [lease for lease in leases()["leases"] if lease["ulid"] == address]
            self.assertTrue(lease["bound"])
            self.assertEqual(len(lease["locators"]), len(A.providers))
            self.hosts[self.node] = {"ulid": address}
            self.assert_pings(self.node, self.ulid("b-h1"), count=5, wait_s=8)
            context = self.context(self.node, "b-h1")
            self.assertIn(context["current"]["local"], lease["locators"])
            note(f"{address} by DHCPv6, and a context from {context['current']['local']}")
            # The box dies and comes back: the host is served without asking again.
            box.kill(A)
            box.start(A)
            box.wait_ready(A)
            self.assert_pings(self.node, self.ulid("b-h1"), count=5, wait_s=8)
        finally:
            running.terminate()
            running.wait()
        done = net.exec_in(self.node, ["timeout", "20", *self.dhclient("-r")], check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        # On a busy machine the client may be gone before the box has seen what it sent.
        released = lambda: [lease["bound"] for lease in leases()["leases"] if lease["ulid"] == address] == [False]  # noqa: E731
        self.wait_until("it is released", released, 5)
        self.assertNotEqual(self.ping("b-h1", address, count=1).returncode, 0)


class Churn(LabTest):
    """Clients that come and go without rest, and a daemon that is killed at random moments."""

    options = {"extra": CONFIG, "log": "warn"}

    def setUp(self):
        self.log = tempfile.NamedTemporaryFile("r", suffix=".events")
        self.addCleanup(self.log.close)
        command = [sys.executable, str(HERE / "dhcpclients.py"), "eth0", "150", str(SEED)]
        with open(self.log.name, "w") as out:
            self.crowd = subprocess.Popen(net.inside("a-h1", command), stdout=out)
        self.addCleanup(self.end)
        self.told, self.count, self.begun = {}, 0, ""

    def end(self):
        if self.crowd.poll() is None:
            self.crowd.terminate()
            self.crowd.wait()

    def catch_up(self):
        """What clients were told until now; and who gave something up since the last call."""
        gave = set()
        lines = (self.begun + self.log.read()).splitlines(keepends=True)
        # The last line may still be in the making.
        self.begun = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        for line in lines:
            event = json.loads(line)
            self.assertNotIn("twice", event, line)
            if "told" in event:
                self.told[event["told"]] = (event["address"], event["until"])
                self.count += 1
            else:
                self.told.pop(event["gives"], None)
                gave.add(event["gives"])
        return gave

    def check(self):
        """Who was told something before, and has not given it up until the daemon answered, must have it."""
        self.catch_up()
        before = dict(self.told)
        view = leases()
        gave = self.catch_up()
        kept = {f"{lease['duid']}/{lease['iaid']}": lease for lease in view["leases"]}
        checked = 0
        for client, (address, until) in before.items():
            if client in gave or until < time.time():
                continue
            lease = kept.get(client)
            self.assertIsNotNone(lease, f"{client} was told {address}, and is forgotten")
            self.assertTrue(lease["bound"] and same(lease["ulid"], address), f"{client} was told {address}: {lease}")
            checked += 1
        bound = [lease["ulid"] for lease in view["leases"] if lease["bound"]]
        self.assertEqual(len(bound), len(set(bound)))
        served = {host["ulid"] for host in box.ctl_json(A, "hosts")["hosts"]}
        return checked, len(served)

    def test_no_lease_is_lost_and_no_address_is_with_two_clients(self):
        chance = random.Random(SEED)
        self.wait_until("clients have leases", lambda: self.catch_up() is not None and len(self.told) > 20)
        checked = 0
        for number in range(KILLS):
            time.sleep(chance.uniform(0.05, 1.0))
            box.kill(A)
            self.assertIsNone(self.crowd.poll(), "an address was with two clients")
            # Half-written names and torn pages are the store's business, not ours to clean up.
            box.start(A)
            box.wait_ready(A)
            more, served = self.check()
            checked += more
            if number % 10 == 9:
                note(f"{number + 1} kills, {self.count} leases told, {checked} looked at, {served} hosts served")
        self.assertGreater(checked, 10 * KILLS, "the clients were told too little for this to mean anything")
        self.end()
        stored = box.ctl_json(A, "store", "export")
        self.assertGreater(len(stored["leases"]), 20)
        box.kill(A)
        # The last threads of a process that was killed let go of its files a moment later.
        self.wait_until("the store is good", lambda: box.ctl_process(A, ["store", "check"]).returncode == 0)
        mode = (A.run_dir / "leases.redb").stat().st_mode & 0o777
        self.assertEqual(mode, 0o600)
        box.start(A)
        box.wait_ready(A)


class Hostile(LabTest):
    """Broken messages, lying relays and a flood of clients: each leaves a counter and a line, and takes nothing from anybody."""

    options = {"extra": CONFIG.replace("leases_max = 2000", "leases_max = 60"), "log": "info"}

    def send(self, payloads, source_port=546):
        code = (
            "import socket,sys;s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM);i=socket.if_nametoindex('eth0');"
            "s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_IF,i);s.bind(('::',%d));"
            "[s.sendto(bytes.fromhex(l.strip()),('ff02::1:2',547,0,i)) for l in sys.stdin]" % source_port
        )
        lines = "\n".join(payload.hex() for payload in payloads) + "\n"
        net.exec_in("a-h2", [sys.executable, "-c", code], input=lines)

    def test_a_hostile_link(self):
        crowd = subprocess.Popen(
            net.inside("a-h1", [sys.executable, str(HERE / "dhcpclients.py"), "eth0", "10", "7"]), stdout=subprocess.PIPE, text=True
        )
        try:
            self.wait_until("the good clients have leases", lambda: leases()["bound"] >= 5)
            before = self.counters()
            chance = random.Random(SEED)
            noise = [chance.randbytes(chance.randrange(1, 300)) for _ in range(300)]
            sys.path.insert(0, str(HERE))
            from dhcpclients import REQUEST, SOLICIT, Client, option

            liar = b"\x0c\x00" + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "fe80::9")
            lies = [liar + option(9, Client(9000 + n).message(SOLICIT)) for n in range(50)]
            self.send(noise + lies)
            # A flood of clients that all go through to the end.
            server = bytes.fromhex(leases()["server"])
            flood = []
            for number in range(1000, 1400):
                client = Client(number)
                client.server = server
                flood.append(client.message(REQUEST))
            for at in range(0, len(flood), 40):
                self.send(flood[at : at + 40])
                time.sleep(0.05)
            self.wait_until("the flood is refused", lambda: self.counters().get("dhcp_refused_full", 0) > 100)
            after = self.counters()
            for name in ("dhcp_drop_malformed", "dhcp_drop_bad_relay", "dhcp_refused_full"):
                self.assertGreater(after.get(name, 0), before.get(name, 0), name)
            self.assertLessEqual(leases()["bound"], 60)
            log = (A.run_dir / "pshim6d.log").read_text()
            for line in ("no DHCPv6 message", "a DHCPv6 relay that is not listened to", "no address for a client"):
                self.assertIn(line, log)
            self.assertIsNone(crowd.poll())
            self.assert_pings("a-h1", self.ulid("b-h1"), wait_s=8)
        finally:
            crowd.terminate()
            crowd.communicate()


def same(one, other):
    return socket.inet_pton(socket.AF_INET6, one) == socket.inet_pton(socket.AF_INET6, other)


if __name__ == "__main__":
    unittest.main()
