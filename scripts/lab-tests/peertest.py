"""What the tests with the independent peer share."""

import contextlib
import subprocess
import sys

from common import SITES, LabTest, box, net
from remote import Peer, make_identity, wire_core

PEER_TIMEOUT_S, BOX_TIMEOUT_S = 4, 3
SLACK_S = 1.0  # what a busy machine may add to a timer
ECHO_SERVER = """
import socket, sys
port = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
port.bind(("::", int(sys.argv[1])))
print("bound", flush=True)
while True:
    octets, source = port.recvfrom(65535)
    if sys.argv[2] == "echo":
        port.sendto(octets, source)
"""


class PeerTest(LabTest):
    def setUp(self):
        wire_core()
        self.dislikes_expected = []
        self.host = self.hosts["a-h1"]

    def tearDown(self):
        for name in net.cuts():
            net.heal(name)
        self.assert_no_spoofing()

    def peer(self, kind="hba", *arguments, timeout=PEER_TIMEOUT_S, **options):
        """A running peer whose dislikes are looked at when the test ends."""
        found = Peer(make_identity(kind, **options), "--send-timeout", str(timeout), *arguments)
        self.addCleanup(self.judge_peer, found)
        self.addCleanup(found.close)
        self.addCleanup(found.settle, 0.2)
        return found

    def judge_peer(self, peer):
        texts = [event["text"] for event in peer.found("dislike")]
        left = [text for text in texts if not any(expected in text for expected in self.dislikes_expected)]
        self.assertEqual(left, [], f"the peer's record:\n{peer.shown()}")

    def introduce(self, peer, locators=None):
        """Tells site a's box of the peer, so that packets to it open a context."""
        entry = {"name": f"ext-{peer.ulid.replace(':', '-')}", "ulid": peer.ulid, "locators": locators or peer.addresses}
        listed = ", ".join(f'"{locator}"' for locator in entry["locators"])
        with open(SITES["a"].config, "a") as config:
            config.write(f'\n[[peer]]\nname = "{entry["name"]}"\nulid = "{entry["ulid"]}"\nlocators = [{listed}]\n')
        done = box.ctl_process(SITES["a"], ["reload"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def opened(self, kind="hba", *arguments, **options):
        """A peer that has opened a context with a-h1."""
        peer = self.peer(kind, *arguments, **options)
        self.open(peer)
        return peer

    def open(self, peer, host=None, **options):
        since, host = peer.mark(), host or self.host
        peer.order("open", peer=host["ulid"], locator=host["locators"][0], **options)
        return peer.wait("established", since, role="initiator")

    def echoes(self, peer, count=3, **options):
        """The peer pings a-h1."""
        since = peer.mark()
        for sequence in range(count):
            peer.order("echo", sequence=sequence, **options)
            peer.wait("echo_reply", since, sequence=sequence)

    def of(self, peer, host=None):
        """The box's contexts with the peer."""
        ulid = (host or self.host)["ulid"]
        return [c for c in box.contexts(SITES["a"]) if (c["ulid_local"], c["ulid_peer"]) == (ulid, peer.ulid)]

    def assert_agreed(self, peer):
        """Both ends tell the same of the one context there is."""
        (ours,), (theirs,) = self.of(peer), peer.order("contexts")
        self.assertEqual(tag(ours["local_tag"]), theirs["peer_tag"])
        self.assertEqual(tag(ours["peer_tag"]), theirs["local_tag"])
        self.assertEqual(sorted(ours["peer_locators"]), sorted(theirs["locals"]))
        self.assertEqual(sorted(theirs["peers"]), sorted(self.host["locators"]))
        return ours, theirs

    @contextlib.contextmanager
    def udp_port(self, port, manner):
        """A UDP port in a-h1 that echoes, or says nothing."""
        command = net.inside("a-h1", [sys.executable, "-c", ECHO_SERVER, str(port), manner])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            server.stdout.readline()
            try:
                yield
            finally:
                server.kill()

    @contextlib.contextmanager
    def pinging(self, peer, interval_s=0.2):
        """a-h1 pings the peer all the while; yields a list that holds its output at the end."""
        command = net.inside("a-h1", ["ping", "-6", "-n", "-i", str(interval_s), peer.ulid])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output = []
            try:
                yield output
            finally:
                process.send_signal(2)
                output += process.stdout.read().splitlines()

    def messages(self, peer, since=0, way="in"):
        peer.settle(0.1)
        return [event["message"] for event in peer.found(way, since)]


def tag(value):
    return value if isinstance(value, int) else int(value, 16)


def deaf(address):
    return {"way": "in", "local": address}


def mute(address):
    return {"way": "out", "local": address}
