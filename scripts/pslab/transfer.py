"""A TCP transfer between two hosts of the lab, paced, with the SHA-256 of what left and of what arrived.

Run as a program it is one end (`receive` or `send`) and prints JSON lines; `Transfer` starts both ends in their
nodes and follows them. The hosts' kernels do the TCP: nothing here knows of Shim6.
"""

import argparse
import hashlib
import json
import random
import socket
import subprocess
import sys
import threading
import time

CHUNK = 32 * 1024
GAP_S = 0.3  # a silence worth telling; the outage is the longest silence of any length
LIFE_SIGN_S = 0.25


def say(event, **details):
    print(json.dumps({"event": event, "time": time.time(), **details}), flush=True)


def receive(port, patience_s):
    """Takes one connection, hashes what comes, answers with the digest. Says every silence that ended."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=1)
    say("listening")
    listener.settimeout(patience_s)
    connection, peer = listener.accept()
    listener.close()
    connection.settimeout(patience_s)
    digest, total, last, longest, told = hashlib.sha256(), 0, None, (0.0, 0.0), 0.0
    say("accepted", peer=peer[0])
    while True:
        try:
            data = connection.recv(256 * 1024)
        except TimeoutError:
            say("stalled", bytes=total, outage_ms=1000 * patience_s)
            return 1
        now = time.time()
        if last is not None and now - last > longest[0]:
            longest = (now - last, last)
        if last is not None and now - last > GAP_S:
            say("gap", bytes=total, began=last, ms=round(1000 * (now - last), 1))
        if not data:
            break
        digest.update(data)
        total, last = total + len(data), now
        if now - told > LIFE_SIGN_S:
            told = now
            say("progress", bytes=total)
    connection.sendall(digest.hexdigest().encode())
    connection.close()
    outage = {"outage_ms": round(1000 * longest[0], 1), "outage_began": longest[1]}
    say("done", bytes=total, sha256=digest.hexdigest(), **outage)
    return 0


def send(address, port, total, rate, patience_s):
    """Connects, sends pseudo-random octets at `rate` octets/s, compares the digests."""
    began = time.time()
    connection = socket.create_connection((address, port), timeout=patience_s)
    say("connected", ms=round(1000 * (time.time() - began), 1))
    # The kernel gives up only when we do; by default it would take minutes to notice.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience_s))
    digest, sent, start = hashlib.sha256(), 0, time.monotonic()
    source = random.Random(total)
    blocks = [source.randbytes(CHUNK) for _ in range(16)]
    while sent < total:
        if rate:
            ahead = sent / rate - (time.monotonic() - start)
            if ahead > 0:
                time.sleep(ahead)
            elif ahead < -0.5:
                # After an outage go on at the same pace instead of making up for lost time in one burst.
                start -= ahead
        # Every chunk differs from every other, so that one lost, doubled or moved would show.
        data = (sent.to_bytes(8, "big") + blocks[sent // CHUNK % 16])[: min(CHUNK, total - sent)]
        connection.sendall(data)
        digest.update(data)
        sent += len(data)
    connection.shutdown(socket.SHUT_WR)
    echoed = b""
    while piece := connection.recv(200):
        echoed += piece
    say("done", bytes=sent, sha256=digest.hexdigest(), peer_sha256=echoed.decode())
    return 0 if echoed.decode() == digest.hexdigest() else 1


class Transfer:
    """Both ends of one transfer, running; `wait()` for the result."""

    def __init__(self, sender, receiver, address, total, rate=0, port=5001, patience_s=40.0):
        from . import net

        self.total, self.events, self.lock, self.received = total, [], threading.Lock(), 0
        self.changed = threading.Condition(self.lock)
        common = [str(port), "--patience", str(patience_s)]
        me = [sys.executable, "-B", __file__]
        self.processes, self.threads, self.last_words = {}, [], {}
        self.start("receiver", net.inside(receiver, [*me, "receive", *common]))
        try:
            self.wait_for("receiver", "listening", 10)
            arguments = [*common, "--to", address, "--bytes", str(total), "--rate", str(rate)]
            self.start("sender", net.inside(sender, [*me, "send", *arguments]))
        except BaseException:
            self.abort()
            raise

    def start(self, end, command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes[end] = process
        thread = threading.Thread(target=self.follow, args=(end, process), daemon=True)
        thread.start()
        self.threads.append(thread)

    def follow(self, end, process):
        for line in process.stdout:
            event = {"end": end, **json.loads(line)}
            with self.changed:
                if end == "receiver" and "bytes" in event:
                    self.received = event["bytes"]
                self.events.append(event)
                self.changed.notify_all()
        process.stdout.close()
        with self.changed:
            self.events.append({"end": end, "event": "ended", "time": time.time()})
            self.changed.notify_all()

    def find(self, end, name):
        """The first event of this name, or None."""
        with self.lock:
            return next((event for event in self.events if (event["end"], event["event"]) == (end, name)), None)

    def wait_until(self, condition, timeout_s):
        """Waits for `condition()`, looked at after every event; False when time runs out or an end is gone."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                over = any(event["event"] == "ended" for event in self.events)
                if left <= 0 or over:
                    return condition()
                self.changed.wait(left)
        return True

    def wait_for(self, end, name, timeout_s):
        """Waits for an event; raises with what the end said on stderr when it does not come."""

        def there():
            return any((event["end"], event["event"]) == (end, name) for event in self.events)

        if not self.wait_until(there, timeout_s):
            self.abort()
            raise RuntimeError(f"{end}: no `{name}` within {timeout_s} s: {self.complaints()}")
        return self.find(end, name)

    def wait_received(self, octets, timeout_s=60):
        """Waits until the receiver has this many octets."""
        if not self.wait_until(lambda: self.received >= octets, timeout_s):
            self.abort()
            raise RuntimeError(f"only {self.received} of {octets} octets arrived: {self.complaints()}")

    def wait(self, timeout_s=120):
        """Waits for both ends; returns what is to be known about the transfer, whatever became of it."""
        deadline = time.monotonic() + timeout_s
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self.threads:
            thread.join(5)
        sent, got = self.find("sender", "done") or {}, self.find("receiver", "done") or {}
        connected = self.find("sender", "connected") or {}
        stalled = self.find("receiver", "stalled") or {}
        return {
            "complete": got.get("bytes") == self.total and sent.get("bytes") == self.total,
            "bytes": self.received,
            "sha256_sent": sent.get("sha256"),
            "sha256_received": got.get("sha256"),
            "sha256_match": bool(got.get("sha256")) and got.get("sha256") == sent.get("sha256"),
            "outage_ms": got.get("outage_ms", stalled.get("outage_ms")),
            "outage_began": got.get("outage_began"),
            "connect_ms": connected.get("ms"),
            "gaps": [event for event in self.events if event["event"] == "gap"],
            "complaints": self.complaints(),
        }

    def complaints(self):
        """What ended processes said last on stderr."""
        for end, process in self.processes.items():
            if process.poll() is not None and end not in self.last_words:
                with process.stderr as stderr:
                    lines = stderr.read().strip().splitlines()
                self.last_words[end] = lines[-1] if lines else ""
        return "; ".join(f"{end}: {words}" for end, words in self.last_words.items() if words)

    def abort(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self.complaints()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=["receive", "send"])
    parser.add_argument("port", type=int)
    parser.add_argument("--patience", type=float, default=40.0, metavar="SECONDS")
    parser.add_argument("--to", metavar="ADDRESS")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, metavar="OCTETS/S")
    given = parser.parse_args()
    try:
        if given.end == "receive":
            return receive(given.port, given.patience)
        return send(given.to, given.port, given.bytes, given.rate, given.patience)
    except OSError as error:
        print(f"{given.end}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
