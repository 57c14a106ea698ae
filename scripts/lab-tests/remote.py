"""The independent Shim6 host `scripts/peer`, run in the node `ext` and driven from a test."""

import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time

from common import HERE, net

PREFIXES = ("2001:db8:e::/64", "2001:db8:e:1::/64")
SPARE_PREFIX = "2001:db8:e:2:"
PEER = [sys.executable, "-B", str(HERE.parent / "peer")]


def wire_core():
    """The core's end of ext's link gets an address in every prefix of ext but the first, which it has."""
    for prefix in ("2001:db8:e:1::1/64", "2001:db8:e:2::1/64"):
        net.exec_in("core", ["ip", "-6", "addr", "replace", prefix, "dev", "ext0", "nodad"])


def make_identity(kind="hba", prefixes=PREFIXES):
    words = [word for prefix in prefixes for word in ("--prefix", prefix)]
    return json.loads(net.run([*PEER, "identity", "--kind", kind, *words]).stdout)


class Peer:
    """One run of the peer. `events` holds all it said; orders are methods by their names."""

    def __init__(self, identity, *arguments):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(identity, file)
            file.flush()
            # Of its own, since what an earlier peer left behind may still be spoken to.
            self.spare = f"{SPARE_PREFIX}:{secrets.randbits(16) | 0x1000:x}:{secrets.randbits(16) | 0x1000:x}"
            command = [*PEER, "run", file.name, "--configure", "eth0", "--spare", self.spare, *arguments]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(net.inside("ext", command), stdin=pipe, stdout=pipe, stderr=None)
            self.events, self.replies, self.rest = [], [], b""
            self.ulid, self.addresses = identity["addresses"][0], identity["addresses"]
            self.wait("ready")

    def read(self, timeout_s):
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, timeout_s))
        if not ready:
            return
        octets = os.read(self.process.stdout.fileno(), 1 << 16)
        if not octets:
            raise net.LabError("the peer ended")
        *lines, self.rest = (self.rest + octets).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "reply" in told:
                self.replies.append(told["reply"])
            else:
                self.events.append(told)

    def order(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + 10
        while not self.replies:
            if time.monotonic() > deadline:
                raise net.LabError(f"the peer does not answer `{do}`")
            self.read(0.5)
        reply = self.replies.pop(0)
        if isinstance(reply, dict) and "error" in reply:
            raise net.LabError(f"{do}: {reply['error']}")
        return reply

    def mark(self):
        """A place in the events from which to look on."""
        self.settle(0)
        return len(self.events)

    def settle(self, seconds):
        """Lets time pass and listens, as long as there is somebody to listen to."""
        deadline = time.monotonic() + seconds
        while not self.process.stdout.closed:
            self.read(deadline - time.monotonic())
            if time.monotonic() >= deadline:
                return

    def found(self, event, since=0, **fields):
        return [
            told for told in self.events[since:]
            if told["event"] == event and all(told.get(name) == value for name, value in fields.items())
        ]  # fmt: skip

    def wait(self, event, since=0, timeout_s=5, count=1, **fields):
        """The `count`th such event since the mark."""
        deadline = time.monotonic() + timeout_s
        while len(self.found(event, since, **fields)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {event} {fields} within {timeout_s} s; since then:\n{self.shown(since)}")
            self.read(0.1)
        return self.found(event, since, **fields)[count - 1]

    def shown(self, since=0):
        return "\n".join(json.dumps(event)[:600] for event in self.events[since:][-40:])

    def close(self):
        """Ends the peer, if it has not been ended: its kernel knows no Shim6 then."""
        if self.process.stdout.closed:
            return
        self.process.stdin.close()
        self.process.wait(5)
        self.process.stdout.close()
