#!/usr/bin/env python3
"""What a box says first: Update Requests, because the operator drains a provider, renumbers, or adds and removes hosts.

A TCP session goes on all the while. Every capture is judged by the strict decoder; lists that the site's key signed are
verified by the independent peer, with openssl.
"""

import json
import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from peertest import PeerTest

A = SITES["a"]
SILENCE_MS = 1500  # a busy machine's; an outage that had to be found would take a Send Timeout, 3 s


def setUpModule():
    need_boxes()


def ctl(*arguments, fails=False):
    done = box.ctl_process(A, list(arguments))
    if (done.returncode != 0) != fails:
        raise AssertionError(f"pshim6ctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout if not fails else done.stderr


def renumber(provider, digit):
    """The provider delegates another /64 of its block, and the operator says so."""
    old, new = A.config.read_text(), f"{provider.block}{digit}::/64"
    lines = old.splitlines(keepends=True)
    mine = lines.index(f'prefix = "{prefix_now(provider)}"\n')
    lines[mine] = f'prefix = "{new}"\n'
    A.config.write_text("".join(lines))
    return json.loads(ctl("host", "update", "--json"))


def prefix_now(provider):
    text = A.config.read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith(f'prefix = "{provider.block}'))


class Session(LabTest):
    """What the scenes share. Each class has a lab of its own, so that captures begin before contexts do."""

    def tearDown(self):
        self.assert_no_spoofing()

    def sends_to(self):
        """The provider of site a that site b's packets of the pair come in through."""
        return plan.provider_of(self.context("b-h1", "a-h1")["current"]["peer"]).name

    def leave(self, name):
        began = time.monotonic()
        self.wait_until(f"both directions have left {name}", lambda: name not in (self.provider_in_use(), self.sends_to()))
        note(f"{name} was left within {time.monotonic() - began:.1f} s")


class Operator(Session):
    # R5533-018
    def test_a_session_goes_on_while_providers_are_drained_and_hosts_come_and_go(self):
        def meanwhile(_):
            for _ in range(2):
                used = self.provider_in_use()
                ctl("provider", used, "drain")
                self.leave(used)
                shown = json.loads(ctl("status", "--json"))["providers"]
                self.assertEqual([it["steering"] for it in shown if it["name"] == used and not it["leaving"]], ["drain"])
                ctl("host", "add", "a-h9")
                ctl("host", "remove", "a-h9")
                ctl("reload")
                ctl("provider", used, "restore")
                time.sleep(0.5)
                self.assertNotEqual(self.provider_in_use(), used, "restoring moves nothing")

        with self.capturing() as seen:
            result = self.transfer(90 * MB, 6 * MB, meanwhile, at=0.1)
        self.assertLess(result["outage_ms"], SILENCE_MS, result["gaps"])
        self.assertEqual(len(json.loads(ctl("hosts", "--json"))["quarantined"]), 2)
        summary = self.judge(seen.files)
        self.assertGreaterEqual(summary["messages"]["UR"], 4, summary["messages"])
        self.assertGreaterEqual(summary["messages"]["UA"], summary["messages"]["UR"], summary["messages"])
        self.judge_checksums([path for path in seen.files if "control" in path])

    def test_what_cannot_be_obeyed_is_refused(self):
        self.assertIn("no provider called isp", ctl("provider", "isp", "avoid", fails=True))
        ctl("provider", "x", "drain")
        self.assertIn("y cannot be drained", ctl("provider", "y", "drain", fails=True))
        ctl("provider", "x", "restore")


class Renumbering(Session):
    def test_a_session_goes_on_while_its_provider_is_renumbered(self):
        """HBA-only hosts live on with what is left of their set; the old prefix may come back."""

        def meanwhile(_):
            used = plan.PROVIDERS[self.provider_in_use()]
            updated = renumber(used, 7)
            self.assertTrue(all(len(host["removed"]) == 1 and not host["added"] for host in updated["hosts"]), updated)
            self.leave(used.name)
            renumber(used, 1)
            time.sleep(1)

        with self.capturing() as seen:
            result = self.transfer(60 * MB, 6 * MB, meanwhile, at=0.1)
        self.assertLess(result["outage_ms"], SILENCE_MS, result["gaps"])
        self.assertEqual(len(self.context("b-h1", "a-h1")["peer_locators"]), 2)
        self.judge(seen.files)


class Signed(PeerTest):
    """A hybrid host gets a locator outside its address set. The independent peer believes it because of the signature."""

    def hybrid(self):
        text = A.config.read_text()
        if "\nkey = " not in text:
            A.config.write_text(text.replace("\n[site]\n", '\n[site]\nkey = "key.pem"\n', 1))
        made = json.loads(ctl("host", "add", "a-h3", "--make-key", "--json"))
        self.assertEqual(made["kind"], "hybrid")
        net.exec_in("a-h2", ["ip", "-6", "addr", "add", f"{made['ulid']}/64", "dev", "eth0", "nodad"])
        return made

    # R5533-060, R5533-082, R5533-250
    def test_a_list_with_a_signature_is_verified_by_the_peer(self):
        host = self.hybrid()
        peer = self.peer()
        with self.capturing() as seen:
            self.open(peer, host)
            self.echoes(peer)
            since = peer.mark()
            updated = renumber(plan.PROVIDERS["y"], 7)["hosts"]
            (new,) = next(it["added"] for it in updated if it["name"] == "a-h3")
            # Old and new at first; then, when contexts have had time to leave it, without the old.
            request = peer.wait("in", since, message="UR")
            self.assertEqual(request["message"], "UR")
            self.wait_until("the peer knows the new locator", lambda: new in peer.order("contexts")[0]["peers"])
            self.assertEqual(len(peer.order("contexts")[0]["peers"]), 3)
            self.wait_until("the box has been answered", lambda: len(self.of(peer, host)[0]["local_locators"]) == 3)
            self.echoes(peer)
            peer.order("move", local=peer.addresses[0], peer_locator=new)
            self.echoes(peer)
            peer.order("move", local=peer.addresses[0], peer_locator=host["locators"][0])
            self.wait_until(
                "the old locator is gone", lambda: len(peer.order("contexts")[0]["peers"]) == 2, timeout_s=40, step_s=0.5
            )
            self.assertEqual(sorted(peer.order("contexts")[0]["peers"]), sorted([host["locators"][0], new]))
            self.echoes(peer)
            peer.settle(0.1)
            # Tests of other pairs are Update Requests too, without a list.
            told = [event for event in peer.found("in", since) if event["message"] == "UR" and event.get("options")]
            self.assertEqual(len(told), 2, told)
        # The peer's identifier is an address of its provider.
        summary = self.judge(seen.files, ulids="::/0")
        note(f"messages: {summary['messages']}")


if __name__ == "__main__":
    unittest.main()
