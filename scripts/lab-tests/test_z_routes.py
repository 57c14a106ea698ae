#!/usr/bin/env python3
"""Primary and backup by routes: the kernel's interfaces on a box's ports, real routing daemons on them (FRR, and BIRD), and what
their neighbours see when the box is withdrawn, loses a link, stops, is killed or hands over to another process."""

import json
import signal
import subprocess
import time
import unittest

import routing
from common import need_boxes, net, note
from routing import BLOCK, LINK, TRANSIT, Network, inside, run_in, wait

ROOT_ROUTE = "fc00::/7"


def setUpModule():
    need_boxes()


class RoutesTest(unittest.TestCase):
    extra = ""
    bfd = False

    @classmethod
    def setUpClass(cls):
        cls.network = Network(cls.extra)
        try:
            cls.network.up()
            routing.start_routers(cls.network, cls.bfd)
            cls.start_daemons()
            cls.wait_served()
        except BaseException:
            cls.network.down()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.network.down()

    @classmethod
    def start_daemons(cls):
        routing.start_frr(cls.network, cls.bfd)

    # --- what is waited for ---

    @classmethod
    def told(cls):
        network = cls.network
        shown = [run_in(node, "ip", "-6", "route").stdout for node in ("inner", "box", "isp")]
        return "\n--\n".join([*shown, network.log(network.near)])

    @classmethod
    def wait_served(cls, timeout_s=30.0):
        """Both neighbours send to the box; returns the seconds it took."""
        return cls.wait_routes((True, True), timeout_s)

    @classmethod
    def wait_routes(cls, expected, timeout_s=30.0):
        began = time.monotonic()
        network = cls.network

        def seen():
            return bool(network.route_to("inner", ROOT_ROUTE)), bool(network.route_to("isp", BLOCK))

        wait(lambda: seen() == expected, timeout_s, lambda: f"{expected}: {cls.told()}", step_s=0.01)
        return time.monotonic() - began

    def crosses(self, count=3):
        network = self.network
        done = network.ping("h1", network.hosts["h2"]["ulid"], count=count)
        return done.returncode == 0 and f" {count} received" in done.stdout

    def wait_crosses(self, timeout_s=10.0):
        wait(self.crosses, timeout_s, self.told)


class Frr(RoutesTest):
    """FRR beside the box: OSPFv3 inside, BGP towards the provider."""

    def test_a_neighbours_hear_of_the_box_and_hosts_behind_a_router_reach_a_peers_site(self):
        network = self.network
        neighbours = network.vtysh("inner", "show ipv6 ospf6 neighbor json", "ospf6d")
        self.assertEqual([it["state"] for it in json.loads(neighbours)["neighbors"]], ["Full"], neighbours)
        self.assertIn("fc00:a:0:1::/64", {route["dst"] for route in network.routes("box")})
        # The metric of the role: as it is in BGP, and in OSPFv3 as the daemon is told to say it.
        outside = json.loads(network.vtysh("isp", f"show bgp ipv6 unicast {BLOCK} json", "bgpd"))["paths"][0]
        self.assertEqual(outside["metric"], 100, outside)
        known = json.loads(network.vtysh("inner", "show ipv6 ospf6 route detail json", "ospf6d"))["routes"][ROOT_ROUTE]
        self.assertEqual(known["metricCostE2"], 100, known)
        own = json.loads(run_in("box", "ip", "-6", "-j", "addr", "show", "scope", "link").stdout)
        own = {link["ifname"]: [it["local"] for it in link["addr_info"] if "local" in it] for link in own if link}
        for node, prefix, interface in (("inner", ROOT_ROUTE, "ps-lan"), ("isp", BLOCK, "ps-x")):
            self.assertIn(network.route_to(node, prefix)["gateway"], own[interface])
        status = network.status(network.near)["system"]
        self.assertTrue(status["fit"], status)
        self.assertEqual([it["prefix"] for it in status["routes"]], [ROOT_ROUTE, BLOCK], status)
        self.assertTrue(status["inner_router"].startswith("fe80::"), "learned from OSPFv3")
        self.wait_crosses()
        context = json.loads(network.ctl(network.near, "contexts", "--json").stdout)["contexts"][0]
        self.assertEqual(context["state"], "established")

    def test_b_the_kernel_answers_and_asks_but_speaks_for_nobody_else(self):
        network = self.network
        for node, address in (("inner", f"{TRANSIT}5"), ("isp", f"{LINK}5"), ("inner", f"{TRANSIT}2"), ("isp", f"{LINK}2")):
            done = network.ping(node, address)
            self.assertEqual(done.returncode, 0, f"{node} -> {address}: {done.stdout}")
        self.assertEqual(network.ping("box", f"{TRANSIT}1").returncode, 0)
        before = network.counters(network.near)
        # With a host's address as its own, with an identifier to the provider, and forwarding for others.
        host = network.hosts["h1"]["ulid"]
        run_in("box", "ip", "-6", "addr", "add", f"{host}/128", "dev", "ps-lan", "nodad")
        run_in("box", "ip", "-6", "route", "add", "fc00:77::/64", "via", f"{LINK}1", "dev", "ps-x")
        try:
            # The host's own link-local neighbour would take its words for the host's.
            self.assertNotEqual(run_in("box", "ping", "-6", "-c", "2", "-W", "1", "-I", host, f"{TRANSIT}1", check=False).returncode, 0)
            self.assertNotEqual(network.ping("box", "fc00:77::1", count=2, wait_s=1).returncode, 0)
        finally:
            run_in("box", "ip", "-6", "addr", "del", f"{host}/128", "dev", "ps-lan")
            run_in("box", "ip", "-6", "route", "del", "fc00:77::/64")
        after = network.counters(network.near)
        grown = {name: after[name] - before[name] for name in after if after[name] != before.get(name)}
        self.assertGreaterEqual(grown.get("control_system_foreign", 0), 2, grown)
        self.assertGreaterEqual(grown.get("control_system_identifier", 0), 2, grown)
        self.assertNotIn(host, network.status(network.near)["system"]["interfaces"][0]["addresses"])
        self.wait_crosses()

    def test_c_withdrawn_it_forwards_on_and_serves_again_when_told_to(self):
        network = self.network
        told = network.ctl(network.near, "box", "withdraw")
        self.assertIn("not fit to serve: the operator withdrew it", told.stdout)
        took = self.wait_routes((False, False))
        status = network.status(network.near)["system"]
        self.assertEqual((status["fit"], status["withdrawn"], status["routes"]), (False, True, []))
        # Neighbourships are not touched, so nothing has to be found again.
        self.assertIn("Full", network.vtysh("inner", "show ipv6 ospf6 neighbor", "ospf6d"))
        run_in("inner", "ip", "-6", "route", "add", ROOT_ROUTE, "via", f"{TRANSIT}2", "dev", "box0", "metric", "1")
        run_in("isp", "ip", "-6", "route", "add", BLOCK, "via", f"{LINK}2", "dev", "cust0", "metric", "1")
        try:
            self.assertTrue(self.crosses(), "what still comes is forwarded")
        finally:
            run_in("inner", "ip", "-6", "route", "del", ROOT_ROUTE, "metric", "1")
            run_in("isp", "ip", "-6", "route", "del", BLOCK, "metric", "1")
        network.ctl(network.near, "box", "serve")
        back = self.wait_served()
        note(f"withdrawn: both neighbours heard of it after {took:.2f} s, of its return after {back:.2f} s")
        self.wait_crosses()

    def test_d_a_port_that_is_down_takes_its_routes_along(self):
        network = self.network
        run_in("isp", "ip", "link", "set", "cust0", "down")
        try:
            # The only provider: nothing inside may be sent here either.
            wait(lambda: not network.routes("box", "proto", "201"), 5, self.told)
            # The kernel takes its time to say so.
            wait(lambda: network.links("box")["ps-x"]["operstate"] == "DOWN", 5, lambda: str(network.links("box")["ps-x"]))
            wait(lambda: not network.route_to("inner", ROOT_ROUTE), 10, self.told)
            self.assertIn("no provider is up", network.status(network.near)["system"]["unfit"])
        finally:
            run_in("isp", "ip", "link", "set", "cust0", "up")
            routing.lines_in("isp", f"addr replace {LINK}1/64 dev cust0\n")
        self.wait_served()
        run_in("inner", "ip", "link", "set", "box0", "down")
        try:
            wait(lambda: not network.routes("box", "proto", "201"), 5, self.told)
            self.wait_routes((False, False))
            self.assertEqual(network.status(network.near)["system"]["unfit"], ["the link to the inside is down"])
        finally:
            run_in("inner", "ip", "link", "set", "box0", "up")
            routing.lines_in("inner", f"addr replace {TRANSIT}1/64 dev box0\n")
        self.wait_served()
        self.wait_crosses()

    def test_e_interfaces_that_somebody_takes_down_get_everything_back(self):
        network = self.network
        run_in("box", "ip", "link", "set", "ps-lan", "down")
        run_in("box", "ip", "link", "set", "ps-lan", "up")
        wait(lambda: network.route_to("box", ROOT_ROUTE), 10, self.told)
        addresses = run_in("box", "ip", "-6", "addr", "show", "dev", "ps-lan").stdout
        self.assertIn(f"{TRANSIT}5/64", addresses)
        self.assertIn(":fd", addresses, "its link-local address")
        self.wait_served()

    def test_f_a_successor_takes_interfaces_and_routes_over_as_they_are(self):
        network = self.network
        self.wait_crosses()
        before = {name: link["ifindex"] for name, link in network.links("box").items()}
        monitor = run_monitor(network)
        self.assertTrue(self.crosses())
        before_it = network.processes["box"]
        network.start_box(network.near, "--take-over")
        old = before_it.pid
        self.assertEqual(before_it.wait(30), 0)
        wait(lambda: (status := network.status(network.near)) and status["process"] != old, 30, self.told)
        time.sleep(3)
        self.assertEqual({name: link["ifindex"] for name, link in network.links("box").items()}, before)
        self.assertTrue(self.crosses())
        self.assertIsNotNone(network.route_to("inner", ROOT_ROUTE))
        seen = monitor()
        self.assertNotIn(ROOT_ROUTE, seen, "the kernel's routes did not move")
        self.assertNotIn("Deleted", seen)
        self.assertEqual(len(network.status(network.near)["system"]["routes"]), 2)
        self.wait_crosses()

    def test_g_told_to_stop_it_withdraws_and_lingers(self):
        network = self.network
        self.wait_served()
        stopping = network.processes["box"]
        began = time.monotonic()
        stopping.send_signal(signal.SIGTERM)
        gone = self.wait_routes((False, False))
        self.assertIsNone(stopping.poll(), "the routes go first")
        stopping.wait(10)
        ended = time.monotonic() - began
        network.processes.pop("box")
        self.assertGreater(ended, 0.9)
        self.assertNotIn("ps-lan", network.links("box"))
        note(f"stopped: routes were gone after {gone:.2f} s, the process after {ended:.2f} s")
        network.start_box(network.near)
        back = self.wait_served()
        note(f"started again: both neighbours send to it after {back:.2f} s")
        self.wait_crosses()

    def test_h_killed_it_leaves_nothing_behind_and_neighbours_go_elsewhere(self):
        network = self.network
        self.wait_served()
        began = time.monotonic()
        network.end_box(network.near)
        wait(lambda: "ps-lan" not in network.links("box"), 5, self.told, step_s=0.005)
        local = time.monotonic() - began  # Most of it is how long the process takes to end.
        self.assertEqual(network.routes("box", "proto", "201"), [])
        heard = local + self.wait_routes((False, False))
        note(f"killed: the kernel's interfaces were gone after {local:.2f} s, both neighbours' routes after {heard:.2f} s")
        network.start_box(network.near)
        self.wait_served()
        self.wait_crosses()


class Fast(RoutesTest):
    """BFD of the routing daemons: a tenth of a second, three times, with both neighbours."""

    bfd = True

    def test_neighbours_leave_a_killed_box_in_less_than_a_second(self):
        network = self.network

        def sessions(node):
            told = json.loads(network.vtysh(node, "show bfd peers json", "bfdd") or "[]")
            return [peer["status"] for peer in told]

        wait(lambda: (sessions("inner"), sessions("isp"), sessions("box")) == (["up"], ["up"], ["up", "up"]), 15, self.told)
        self.wait_crosses()
        heard = network.end_box(network.near) + self.wait_routes((False, False))
        note(f"killed, with BFD: both neighbours' routes were gone after {heard:.2f} s")
        self.assertLess(heard, 1.5)
        network.start_box(network.near)
        self.wait_served()
        self.wait_crosses()


class Bird(RoutesTest):
    """The second implementation: BIRD beside a backup box, with a metric of its own and a configured router."""

    extra = '[routes]\nrole = "backup"\nlinger_ms = 500\n'

    @classmethod
    def start_daemons(cls):
        routing.start_bird(cls.network)

    def test_a_bird_announces_what_the_kernel_has_and_takes_it_back(self):
        network = self.network
        self.assertIn("Full", network.birdc("box", "show ospf neighbors"))
        outside = json.loads(network.vtysh("isp", f"show bgp ipv6 unicast {BLOCK} json", "bgpd"))["paths"][0]
        self.assertEqual(outside["metric"], 200, outside)
        known = json.loads(network.vtysh("inner", "show ipv6 ospf6 route detail json", "ospf6d"))["routes"][ROOT_ROUTE]
        self.assertEqual(known["metricCostE2"], 200, known)
        self.assertEqual(network.status(network.near)["system"]["role"], "backup")
        self.assertEqual(network.route_to("box", ROOT_ROUTE)["metric"], 200)
        self.wait_crosses()
        network.ctl(network.near, "box", "withdraw")
        self.wait_routes((False, False))
        network.ctl(network.near, "box", "serve")
        self.wait_served()
        self.wait_crosses()

    def test_b_another_role_is_taken_over_by_a_reload(self):
        network = self.network
        text = network.near.config.read_text()
        network.near.config.write_text(text.replace('role = "backup"', 'role = "primary"'))
        network.ctl(network.near, "reload")
        wait(lambda: (network.route_to("box", ROOT_ROUTE) or {}).get("metric") == 100, 5, self.told)

        def med():
            told = json.loads(network.vtysh("isp", f"show bgp ipv6 unicast {BLOCK} json", "bgpd") or "{}")
            return [path.get("metric") for path in told.get("paths", [])]

        wait(lambda: med() == [100], 10, self.told)
        self.wait_crosses()


def run_monitor(network):
    """Records what happens to routes in the box's kernel; the returned function ends it and tells."""
    process = subprocess.Popen(
        inside("box", ["ip", "-6", "monitor", "route", "link"]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(0.3)  # Until it listens.

    def end():
        process.terminate()
        return process.communicate(timeout=5)[0]

    return end


if __name__ == "__main__":
    unittest.main(verbosity=2)
