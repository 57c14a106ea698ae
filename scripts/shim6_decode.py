#!/usr/bin/env python3
"""Judges every Shim6 packet of one or more captures (pcap, pcapng) as strictly as the RFCs allow.

Several files are read as one, in time order, so give the captures of all providers together. Prints a summary and
every violation; the exit status is 1 when there is one, 2 when a file cannot be read.
"""

import argparse
import ipaddress
import json
import sys

from shim6dec import pcap, track


def decode(files, ulids=None, midstream=False):
    """Reads the files in time order; returns the tracker that judged them."""
    tracker = track.Tracker(ulids=ipaddress.IPv6Network(ulids) if ulids else None, midstream=midstream)
    frames = [frame for file in files for frame in pcap.read(file)]
    # Sorting is stable: frames of one file that share a time stamp keep their order.
    for frame in sorted(frames, key=lambda frame: frame.time):
        tracker.frame(frame)
    tracker.finish()
    return tracker


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--ulids", metavar="PREFIX", help="every ULID has to be in this prefix")
    parser.add_argument("--midstream", action="store_true", help="contexts were there before the capture began")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    try:
        summary = decode(given.files, given.ulids, given.midstream).summary()
    except (pcap.CaptureError, OSError) as error:
        print(f"shim6_decode: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(summary, indent=1))
    else:
        show(summary)
    return 0 if summary["ok"] else 1


def show(summary):
    print("messages: " + ", ".join(f"{name} {count}" for name, count in summary["messages"].items()))
    for handshake in summary["handshakes"]:
        print(f"{handshake['kind']}: {handshake['initiator']} -> {handshake['responder']} in {handshake['ms']} ms")
    for end in summary["contexts"]:
        print(f"tag {end['tag']}: {end['from']} -> {end['to']}, {end['payload_packets']} payload packets")
    for violation in summary["violations"]:
        print(f"{violation['file']}:{violation['packet']}: [{violation['rule']}] {violation['text']}")
    total = sum(summary["violation_counts"].values())
    print(f"{total} violations" if total else "no violations")


if __name__ == "__main__":
    sys.exit(main())
