"""TCP sessions that stay: small records at a steady pace, each checked octet by octet, and every silence told with its time.

Run as a program it is one end (`receive` or `send`) of one session and prints JSON lines; `Stream` starts both ends in their nodes.
Unlike a transfer it has no end of its own: it goes on until it is stopped, so that one session can see many troubles.
"""

import argparse
import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time

RECORD = 1024
SILENCE_S = 0.05  # shorter ones are not told
LIFE_SIGN_S = 0.25


def say(event, **details):
    print(json.dumps({"event": event, "time": time.time(), **details}), flush=True)


def records(seed):
    """What is sent, record by record: no two are alike, and each depends on the session."""
    filling = random.Random(seed).randbytes(RECORD - 40)
    number = 0
    while True:
        head = number.to_bytes(8, "big")
        yield head + filling + hashlib.sha256(head + filling).digest()
        number += 1


def receive(port, seed, patience_s):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=1)
    say("listening")
    listener.settimeout(patience_s)
    connection, _ = listener.accept()
    listener.close()
    connection.settimeout(patience_s)
    expected, waiting, count, last, told = records(seed), b"", 0, time.time(), 0.0
    while True:
        try:
            octets = connection.recv(65536)
        except TimeoutError:
            say("lost", records=count, why=f"nothing for {patience_s} s")
            return 1
        now = time.time()
        if now - last > SILENCE_S:
            say("silence", began=last, ms=round(1000 * (now - last), 1))
        if now - told > LIFE_SIGN_S:
            told = now
            say("progress", records=count)
        last = now
        if not octets:
            say("done", records=count, rest=len(waiting))
            return 1 if waiting else 0
        waiting += octets
        while len(waiting) >= RECORD:
            if waiting[:RECORD] != next(expected):
                say("broken", records=count)
                return 1
            waiting, count = waiting[RECORD:], count + 1


def send(address, port, seed, pace_s, patience_s):
    stopped = []
    # No Event: it takes a lock to be set, and the loop below would hold that lock at times when the signal comes.
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    connection = socket.create_connection((address, port), timeout=patience_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience_s))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    say("connected")
    count = 0
    for record in records(seed):
        time.sleep(pace_s)
        if stopped:
            break
        connection.sendall(record)
        count += 1
    connection.shutdown(socket.SHUT_WR)
    # Until the other end has everything and closes, or says no more.
    connection.recv(1)
    say("done", records=count)
    return 0


class Stream:
    """One session, running."""

    def __init__(self, sender, receiver, address, port, pace_s=0.01, patience_s=60.0):
        from . import net

        self.name, self.events, self.lock = f"{sender} -> {receiver}:{port}", [], threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.processes, self.threads = {}, []
        me = [sys.executable, "-B", __file__]
        common = [str(port), "--patience", str(patience_s)]
        try:
            self.start("receiver", net.inside(receiver, [*me, "receive", *common]))
            self.wait_for("receiver", "listening")
            self.start("sender", net.inside(sender, [*me, "send", *common, "--to", address, "--pace", str(pace_s)]))
            self.wait_for("sender", "connected", patience_s)
        except BaseException:
            self.abort()
            raise

    def start(self, end, command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.processes[end] = process
        thread = threading.Thread(target=self.follow, args=(end, process), daemon=True)
        thread.start()
        self.threads.append(thread)

    def follow(self, end, process):
        with process.stdout:
            for line in process.stdout:
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    event = {"event": "complaint", "time": time.time(), "text": line.strip()}
                with self.changed:
                    self.events.append({"end": end, **event})
                    self.changed.notify_all()
        with self.changed:
            self.events.append({"end": end, "event": "ended", "time": time.time()})
            self.changed.notify_all()

    def found(self, end, name):
        return [event for event in self.events if (event["end"], event["event"]) == (end, name)]

    def wait_for(self, end, name, timeout_s=10.0):
        with self.changed:
            there = self.changed.wait_for(lambda: self.found(end, name) or self.found(end, "ended"), timeout_s)
            if not there or not self.found(end, name):
                raise RuntimeError(f"{self.name}: no `{name}` of the {end}: {self.events}")

    def silence_ms(self, since, until):
        """The longest silence that began in a span of time, as the receiver saw it; below 50 ms it is called 0."""
        with self.lock:
            silences = self.found("receiver", "silence")
        return max((event["ms"] for event in silences if since <= event["began"] < until), default=0.0)

    def is_alive(self):
        return all(process.poll() is None for process in self.processes.values())

    def flows(self, within_s=1.0):
        """Whether something arrived of late."""
        with self.lock:
            signs = self.found("receiver", "progress")
        return bool(signs) and time.time() - signs[-1]["time"] < within_s

    def stop(self, timeout_s=60.0):
        """Ends the session in order; says whether all that was sent arrived, octet by octet, and what was wrong."""
        sender = self.processes["sender"]
        if sender.poll() is None:
            sender.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self.threads:
            thread.join(5)
        sent, got = self.found("sender", "done"), self.found("receiver", "done")
        if sent and got and sent[0]["records"] == got[0]["records"] and not got[0]["rest"]:
            return None
        last = [event for event in self.events if event["event"] in ("done", "lost", "broken", "complaint")]
        ends = {end: process.returncode for end, process in self.processes.items()}
        return f"{self.name}: {last or f'ended without a word, {ends}, after {self.events[-4:]}'}"

    def abort(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=["receive", "send"])
    parser.add_argument("port", type=int)
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--to", metavar="ADDRESS")
    parser.add_argument("--pace", type=float, default=0.01, metavar="SECONDS")
    given = parser.parse_args()
    try:
        if given.end == "receive":
            return receive(given.port, given.port, given.patience)
        return send(given.to, given.port, given.port, given.pace, given.patience)
    except OSError as error:
        print(f"{given.end}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
