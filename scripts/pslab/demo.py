"""A live TCP session loses its provider and goes on, with a timeline to read.

Shows two sites with two providers each in network namespaces of this machine, plain Linux hosts and a `pshim6d` at
each site. A host of site a sends a file to a host of site b; on the way the provider in use is cut for good.
"""

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shim6_decode  # noqa: E402
from pslab import box, capture, lab, net, plan  # noqa: E402
from pslab.transfer import Transfer  # noqa: E402

SENDER, RECEIVER = "a-h1", "b-h1"
SITE = plan.SITES["a"]
SEND_TIMEOUT_S = 3  # REAP's Send Timeout in both boxes
OUTAGE_LIMIT_MS = 6000  # what we promise with that Send Timeout
PATIENCE_S = 20  # a silence as long as this is the end of the session
MB = 1_000_000


class Story:
    """The timeline: one line per event, in seconds since the session began."""

    def __init__(self):
        self.zero = None
        self.lock = threading.Lock()

    def tell(self, text, when=None):
        with self.lock:
            stamp = f"{(when or time.time()) - self.zero:7.2f} s" if self.zero else "         "
            print(f"{stamp}  {text}", flush=True)


def main():
    given = arguments()
    # A closed terminal or a `kill` still takes the lab down.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    story, result = Story(), None
    try:
        with tempfile.TemporaryDirectory(prefix="pshim6-demo-") as folder:
            result = show(given, story, folder)
    except (net.LabError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    finally:
        if given.keep:
            print("the lab stays up: look around with scripts/lab, end it with `scripts/lab down`")
        else:
            take_down(story)
    return conclude(given, result)


def take_down(story):
    try:
        lab.down(say=story.tell)
    except net.LabError as error:
        print(f"demo: {error}", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards")
    parser.add_argument(
        "--cut-both", "--break", dest="cut_both", action="store_true", help="cut the second provider too: must fail"
    )
    parser.add_argument("--no-build", dest="build", action="store_false", help="the programs are built already")
    parser.add_argument("--megabytes", type=int, default=200, metavar="N", help="size of the file (200)")
    parser.add_argument("--rate", type=float, default=10.0, metavar="MB/S", help="pace of the sender (10)")
    return parser.parse_args()


def interrupt(number, frame):
    raise KeyboardInterrupt


def show(given, story, folder):
    """Brings the lab up, plays the scene, judges what was captured."""
    lab.up(lab.Options(send_timeout=SEND_TIMEOUT_S, build=given.build), say=story.tell)
    seen = capture.Capture(folder)
    address = lab.hosts()[RECEIVER]["ulid"]
    story.zero = time.time()
    story.tell(f"{SENDER} opens a TCP session to {RECEIVER} ({address}): {given.megabytes} MB")
    running = Transfer(SENDER, RECEIVER, address, given.megabytes * MB, given.rate * MB, patience_s=PATIENCE_S)
    ticker = Ticker(running, story, seen)
    try:
        scene = play(given, story, running, seen)
        outcome = running.wait(timeout_s=given.megabytes / given.rate * 3 + 2 * PATIENCE_S)
    finally:
        ticker.stop()
        running.abort()
    scene["moved_to"] = provider_in_use() if outcome["complete"] else None
    summary = shim6_decode.decode(seen.stop(), "fc00::/7").summary()
    return judge(given, story, scene, outcome, summary)


def play(given, story, running, seen):
    """Lets a quarter of the file pass, then cuts the provider in use."""
    connected = running.wait_for("sender", "connected", PATIENCE_S)
    made = first_handshake(seen)
    if made:
        story.tell(f"handshake done: I1, R1, I2, R2 between the boxes in {made['ms']:.1f} ms", made["ended"])
    story.tell(f"connected after {connected['ms']:.0f} ms; the hosts know nothing of Shim6", connected["time"])
    running.wait_received(running.total // 4, timeout_s=running.total / MB / given.rate + PATIENCE_S)
    name = provider_in_use()
    if name is None:
        raise net.LabError(f"{SITE.box} has no context for this session: is it shimmed at all?")
    net.cut(name)
    cut_at = time.time()
    story.tell(f"CUT: provider {name}, in use, silently drops everything, both ways and for good", cut_at)
    if given.cut_both:
        for provider in SITE.providers:
            if provider.name != name:
                net.cut(provider.name)
                story.tell(f"CUT: provider {provider.name} as well: nothing can save this session")
    return {"cut": name, "cut_at": cut_at}


def so_far(seen):
    """What the decoder makes of the control messages captured until now, or None while a record is half written."""
    try:
        control = [path for path in seen.files if path.endswith(".control.pcap")]
        return shim6_decode.decode(control, "fc00::/7")
    except shim6_decode.pcap.CaptureError:
        return None


def first_handshake(seen):
    """The first complete handshake captured so far, or None."""
    time.sleep(0.3)
    decoded = so_far(seen)
    return next(iter(decoded.handshakes), None) if decoded else None


def tell_search(story, seen, began, ended):
    """Tells what the boxes tried while nothing arrived: each pair of providers once, with the answer it got."""
    decoded = so_far(seen)
    probes = [probe for probe in decoded.explored if began <= probe["time"] <= ended] if decoded else []
    told = set()
    for probe in probes:
        source, destination = plan.provider_of(probe["source"]), plan.provider_of(probe["destination"])
        if not source or not destination:
            continue
        text = f"REAP: {source.site}-box probes {source.name} -> {destination.name}, state {probe['state']}"
        if probe["received"]:
            text += ", and reports what it received"
        if text not in told:
            told.add(text)
            story.tell(text, probe["time"])


def provider_in_use():
    """Through which provider site a sends this session now, as its box says."""
    hosts = lab.hosts()
    pair = hosts[SENDER]["ulid"], hosts[RECEIVER]["ulid"]
    for context in box.contexts(SITE):
        if (context["ulid_local"], context["ulid_peer"]) == pair and context["current"]:
            provider = plan.provider_of(context["current"]["local"])
            return provider.name if provider else None
    return None


class Ticker(threading.Thread):
    """Tells how far the transfer is every two seconds, and at once when a silence ended."""

    def __init__(self, running, story, seen):
        super().__init__(daemon=True)
        self.running, self.story, self.seen, self.over = running, story, seen, threading.Event()
        self.start()

    def run(self):
        told, last, due = 0, -1, 0.0
        while not self.over.wait(0.05):
            with self.running.lock:
                gaps = [event for event in self.running.events if event["event"] == "gap"]
            for gap in gaps[told:]:
                tell_search(self.story, self.seen, gap["began"], gap["time"])
                self.story.tell(f"traffic is back after {gap['ms']:.0f} ms of silence", gap["time"])
            told = len(gaps)
            if time.time() - self.story.zero >= due:
                received, due = self.running.received, due + 2.0
                self.story.tell(f"{received / MB:6.0f} MB arrived" if received != last else "       silence …")
                last = received

    def stop(self):
        self.over.set()
        self.join()


def judge(given, story, scene, outcome, summary):
    """Says what happened and returns the result with everything that was not as promised."""
    established = [made for made in summary["handshakes"] if made["kind"] == "establishment"]
    handshake_ms = established[0]["ms"] if established else None
    drops = net.drops()
    faults = []

    def check(good, text):
        if not good:
            faults.append(text)

    check(outcome["complete"], f"the session died: {outcome['bytes'] / MB:.0f} of {given.megabytes} MB arrived")
    check(outcome["sha256_match"], "what arrived is not what was sent")
    dropped = drops[scene["cut"]]["cut_in"] + drops[scene["cut"]]["cut_out"]
    check(dropped > 0, f"the cut of {scene['cut']} hit no packet: the session did not use it")
    check(not outcome["complete"] or scene["moved_to"] not in (None, scene["cut"]), "the session did not move")
    check((outcome["outage_ms"] or 0) < OUTAGE_LIMIT_MS, f"the outage was longer than {OUTAGE_LIMIT_MS} ms")
    check(handshake_ms is not None, "no Shim6 handshake was captured")
    check(summary["ok"], f"malformed Shim6 packets: {summary['violation_counts']}")
    spoofed = sum(counters.get("spoofed", 0) for counters in drops.values())
    check(spoofed == 0, f"{spoofed} packets left through a provider that does not own their source")

    story.tell(f"{outcome['bytes']} octets arrived; longest silence {outcome['outage_ms']} ms")
    story.tell(f"sha256 sent      {outcome['sha256_sent']}")
    story.tell(f"sha256 received  {outcome['sha256_received']}")
    if scene["moved_to"] not in (None, scene["cut"]):
        story.tell(f"the session went from provider {scene['cut']} to provider {scene['moved_to']}")
    messages = ", ".join(f"{name} {count}" for name, count in summary["messages"].items())
    story.tell(f"captured at the providers of both sites, so that each counts twice: {messages}")
    return {
        "session_survived": outcome["complete"] and dropped > 0,
        "outage_ms": outcome["outage_ms"],
        "handshake_ms": handshake_ms,
        "bytes": outcome["bytes"],
        "sha256_match": outcome["sha256_match"],
        "faults": faults,
    }


def conclude(given, result):
    """Writes the JSON and says the verdict; returns the exit status."""
    if result is None:
        result = {"session_survived": False, "outage_ms": None, "handshake_ms": None, "bytes": 0, "sha256_match": False}
        result["faults"] = ["the demo did not get to its end"]
    faults = result.pop("faults")
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=2) + "\n")
    for fault in faults:
        print(f"FAULT: {fault}")
    print("FAILED" if faults else "OK: the session survived the loss of its provider")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
