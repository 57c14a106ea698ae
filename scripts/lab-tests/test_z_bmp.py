#!/usr/bin/env python3
"""Routes that providers lose, told by FRR to the box over BMP and TLS: sessions move at once, and a lie moves nobody."""

import os
import signal
import subprocess
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from pslab import bgp

# Nothing but REAP's own timers and the routers tell of failures: without the latter an outage lasts for half a minute.
EXTRA = "[hints]\ntcp = false\nicmp = false\n"
OURS = ("x", "y")
# What both providers of the other site own.
PEERS = [plan.PROVIDERS[name].prefix for name in ("z", "w")]


def setUpModule():
    need_boxes()
    missing = bgp.needed()
    if missing:
        raise net.LabError(f"not installed: {', '.join(missing)}; scripts/install-deps --services")


class Routers(LabTest):
    options = {"extra": EXTRA, "send_timeout": 15}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            bgp.prepare()
            site = SITES["a"]
            site.config.write_text(site.config.read_text() + bgp.section(OURS))
            box.restart(site)
            bgp.start(OURS, ["2001:db8::/32", *PEERS])
        except BaseException:
            cls.tearDownClass()
            raise

    def setUp(self):
        self.establish()
        self.wait_until("both feeds are complete", lambda: self.states() == ["complete", "complete"], 30)
        for name in OURS:
            bgp.withdraw(name, "2001:db8::/32")
        self.wait_until("two routes each", lambda: [it["routes"] for it in self.bmp()["sources"]] == [2, 2])
        self.wait_until("the peer is asked about", lambda: self.bmp()["asked"] >= 2)
        # The pair that is used when another one is lost has to be tested before.
        self.wait_until("there is a standby", self.has_standby, 30)

    def tearDown(self):
        for name in OURS:
            net.heal(name)
            bgp.announce(name, "2001:db8::/32", *PEERS)
        self.assert_no_spoofing()

    def has_standby(self):
        self.ping("a-h1", self.ulid("b-h1"), count=2)
        return self.context("a-h1", "b-h1").get("standby") is not None

    def bmp(self):
        return box.ctl_json(SITES["a"], "bmp")

    def states(self):
        return [source["state"] for source in self.bmp()["sources"]]

    def count(self, name):
        return self.counters()[name]

    def path_words(self):
        return [path.get("route") for path in box.ctl_json(SITES["a"], "paths")["paths"]]

    def test_1_what_is_told_is_shown(self):
        view = self.bmp()
        self.assertTrue(view["enabled"] and view["tls"])
        (router,) = view["routers"]
        self.assertEqual((router["name"], router["stalled"], len(router["certificate"])), ("edge", False, 64))
        self.assertIn("FRRouting", router["description"])
        text = box.ctl_process(SITES["a"], ["bmp"]).stdout
        self.assertIn("complete", text)
        metrics = box.ctl_json(SITES["a"], "counters", "bmp_")["counters"]
        self.assertGreater(metrics["bmp_updates"], 0)
        # A shorter route covers the same, so nothing is lost with the longer ones.
        bgp.announce("x", "2001:db8::/32")
        bgp.withdraw("x", *PEERS)
        self.wait_until("one route is left", lambda: self.bmp()["sources"][0]["routes"] == 1)
        self.assertEqual(self.bmp()["sources"][0]["lost"], 0)

    def test_2_a_session_goes_on_when_a_route_is_lost_and_after_it_is_back(self):
        moved = {}
        before = {f"control_routes_{name}": self.count(f"control_routes_{name}") for name in ("lost", "upheld", "overruled")}

        def meanwhile(_):
            used = moved["from"] = self.provider_in_use()
            # What the provider forwards towards the peer vanishes, and at the same time its route.
            net.cut(used, "out")
            bgp.withdraw(used, *PEERS)

        result = self.transfer(32 * MB, 8 * MB, meanwhile)
        note(f"route lost: longest silence {result['outage_ms']} ms (Send Timeout is 15 s)")
        self.assertLess(result["outage_ms"], 2000, result["gaps"])
        used = moved["from"]
        self.assertNotEqual(self.provider_in_use(), used)
        grown = [self.count(f"control_routes_{name}") - before[f"control_routes_{name}"] for name in ("lost", "upheld", "overruled")]
        self.assertTrue(grown[0] > 0 and grown[1] > 0 and grown[2] == 0, grown)
        self.assertIn("its route is lost", str(self.path_words()))
        explained = box.ctl_process(SITES["a"], ["explain", self.ulid("a-h1"), self.ulid("b-h1")]).stdout
        self.assertIn("provider", explained)
        # It comes back: nothing is lost by that.
        net.heal(used)
        result = self.transfer(16 * MB, 8 * MB, lambda _: bgp.announce(used, *PEERS))
        self.assertLess(result["outage_ms"], 1000, result["gaps"])
        self.wait_until("nothing is lost any more", lambda: all(it["lost"] == 0 for it in self.bmp()["sources"]))
        self.wait_until("nothing is held", lambda: self.bmp()["held"] == 0)

    def test_3_a_bgp_session_that_ends_is_a_provider_without_routes(self):
        def meanwhile(_):
            used = self.provider_in_use()
            net.cut(used, "out")
            bgp.session(used, False)

        result = self.transfer(24 * MB, 8 * MB, meanwhile)
        note(f"BGP session lost: longest silence {result['outage_ms']} ms")
        self.assertLess(result["outage_ms"], 2000, result["gaps"])
        self.assertIn("down", self.states())
        for name in OURS:
            net.heal(name)
            bgp.session(name, True)
        # FRR says nothing when all is told of a session that came up meanwhile.
        self.wait_until("both are back", lambda: self.states() == ["complete", "complete"], 60)

    def test_4_a_lie_moves_nobody(self):
        before = self.count("control_routes_overruled")
        used = self.provider_in_use()

        def meanwhile(_):
            for name in OURS:
                bgp.withdraw(name, *PEERS)

        with self.capturing() as seen:
            result = self.transfer(24 * MB, 8 * MB, meanwhile)
        note(f"everything withdrawn, nothing wrong: longest silence {result['outage_ms']} ms")
        self.assertLess(result["outage_ms"], 1000, result["gaps"])
        self.assertEqual(self.provider_in_use(), used)
        self.assertGreater(self.count("control_routes_overruled"), before)
        self.judge(seen.files, midstream=True)
        self.assertIn("it works", str(self.path_words()))

    def test_5_a_router_that_is_gone_says_nothing(self):
        os.kill(bgp.pid("edge"), signal.SIGKILL)
        self.wait_until("nobody tells", lambda: self.states() == ["silent", "silent"], 30)
        self.assertTrue(all(it["lost"] == 0 for it in self.bmp()["sources"]))
        self.assert_pings("a-h1", self.ulid("b-h1"))
        folder = bgp.DIRECTORY / "edge"
        peers = [(bgp.neighbour(name), bgp.provider_as(name)) for name in OURS]
        text = (folder / "bgpd.conf").read_text()
        more = text[text.index(" bmp targets"):]
        bgp.launch(SITES["a"].box, "edge", bgp.SITE_AS, bgp.own(OURS[0]), peers, "", more, ["-M", "bmp"])
        self.wait_until("it tells again", lambda: self.states() == ["complete", "complete"], 40)

    def test_6_who_has_no_certificate_is_not_heard(self):
        before = self.count("bmp_messages")
        refused = self.count("bmp_no_handshake")
        # What FRR itself would say, without TLS.
        send = "import socket; s = socket.create_connection(('127.0.0.1', %d)); s.sendall(bytes([3,0,0,0,6,4])); s.settimeout(5); s.recv(9)"
        net.exec_in(SITES["a"].box, ["python3", "-c", send % bgp.BMP_PORT], check=False)
        anonymous = ["openssl", "s_client", "-connect", f"127.0.0.1:{bgp.BMP_PORT}", "-quiet"]
        subprocess.run(net.inside(SITES["a"].box, anonymous), input=b"\3\0\0\0\6\4", capture_output=True, timeout=20)
        self.wait_until("both were refused", lambda: self.count("bmp_no_handshake") >= refused + 2)
        # The true router's statistics go on meanwhile.
        self.assertLessEqual(self.count("bmp_messages") - before, 40)
        self.assertEqual(len(self.bmp()["routers"]), 1)

    def test_7_a_new_process_listens_to_the_router(self):
        self.assertEqual(box.succeed(SITES["a"])["ready"], True)
        self.wait_until("it tells the new one", lambda: self.states() == ["complete", "complete"], 30)
        self.wait_until("the new one asks about the peer", lambda: self.bmp()["asked"] >= 2)
        self.test_2_a_session_goes_on_when_a_route_is_lost_and_after_it_is_back()


if __name__ == "__main__":
    unittest.main()
