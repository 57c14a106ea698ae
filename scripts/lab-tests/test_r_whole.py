#!/usr/bin/env python3
"""The whole story: a host that starts with nothing, a name, `curl`, and a provider that is cut meanwhile.

Nothing of the other site is configured anywhere: addresses come by DHCPv6, names by DNS, locators by names, and each
box publishes its own hosts.
"""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from common import MB, SITES, box, need_boxes, net, note, plan
from pslab import services
from test_p_dhcp import CONFIG, BareHost

A, B = SITES["a"], SITES["b"]
SIZE = 60 * MB


def setUpModule():
    need_boxes()


class Whole(BareHost):
    options = {"services": True, "extra": f'\n[dns]\nupstream = ["{plan.DNS_RESOLVER}"]\n{CONFIG}'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for site in SITES.values():
            text = site.config.read_text()
            site.config.write_text(re.sub(r"(?ms)^\[\[peer\]\]\n.*?(?=^\[|\Z)", "", text))
            done = box.ctl_process(site, ["reload"])
            assert done.returncode == 0, done.stderr

    def serve(self):
        """A web server on b-h1 with one large file."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "file").write_bytes(bytes(SIZE))
        command = [sys.executable, "-m", "http.server", "--bind", self.ulid("b-h1"), "--directory", folder.name, "8000"]
        server = subprocess.Popen(net.inside("b-h1", command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (server.terminate(), server.wait()))

    def test_a_host_with_nothing_fetches_a_file_over_a_provider_cut(self):
        self.serve()
        name = f"b-h1.{B.zone}"
        published = lambda: services.dig(plan.DNS_RESOLVER, name, "TYPE65280", node="ext") != []  # noqa: E731
        self.wait_until("the other site has published its host", published)
        with open(f"{self.folder}/err", "wb") as err:
            client = subprocess.Popen(net.inside(self.node, self.dhclient()), stdout=subprocess.DEVNULL, stderr=err)
        self.addCleanup(lambda: (client.terminate(), client.wait()))
        address, resolver, *_ = self.bound()
        self.hosts[self.node] = {"ulid": address}
        self.wait_until("there is a way out", lambda: "fc00::/8 via fe80::1" in self.routes(), 15)
        held = self.counters()["held"]
        url, out = f"http://{name}:8000/file", f"{self.folder}/got"
        fetch = ["curl", "-6", "-sS", "--limit-rate", "8M", "--max-time", "90", "-o", out, "-w", "%{time_connect} %{size_download}", url]
        fetching = subprocess.Popen(services.with_resolver(self.node, self.folder, resolver, fetch), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        size = lambda: Path(out).stat().st_size if Path(out).exists() else 0  # noqa: E731
        self.wait_until("a part has arrived", lambda: size() > SIZE // 4 or fetching.poll() is not None, 30)
        cut = self.provider_in_use(self.node, "b-h1")
        net.cut(cut)
        self.addCleanup(net.heal, cut)
        said, errors = fetching.communicate(timeout=100)
        self.assertEqual(fetching.returncode, 0, errors)
        connected, received = said.split()
        self.assertEqual((int(received), size()), (SIZE, SIZE))
        self.assertNotEqual(self.provider_in_use(self.node, "b-h1"), cut)
        waited = self.counters()["held"] - held
        note(f"connected after {float(connected) * 1000:.0f} ms, packets that waited for the handshake: {waited}")
        # And the name of the host that came by DHCPv6 is in DNS, with its identifier.
        pointer = services.dig(plan.DNS_AUTHORITY, "-x", address, node="ext")
        self.assertEqual(len(pointer), 1, pointer)
        self.assertEqual(len(services.dig(plan.DNS_AUTHORITY, pointer[0], "AAAA", node="ext")), len(A.providers))
        # Another process that takes the box's place serves the client as before, and still has its context.
        net.heal(cut)
        before = self.context(self.node, "b-h1")
        box.succeed(A)
        counters = self.counters()
        self.assertGreaterEqual(counters["control_inherited"], 1)
        self.assertEqual(counters["control_inherited_not"], 0)
        after = self.context(self.node, "b-h1")
        self.assertEqual((before["local_tag"], before["peer_tag"]), (after["local_tag"], after["peer_tag"]))
        leases = box.ctl_json(A, "leases")["leases"]
        self.assertEqual([lease["ulid"] for lease in leases], [address])
        self.assert_pings(self.node, self.ulid("b-h1"))


if __name__ == "__main__":
    unittest.main()
