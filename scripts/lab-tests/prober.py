#!/usr/bin/env python3
"""An ill-mannered Shim6 speaker, run inside a node: sends any packet it is told to and returns what comes back.

Reads one JSON object per line: {"send": [hex of whole IPv6 packets], "wait_s": …}; answers with
{"replies": [hex of whole IPv6 packets with next header 140]}. Sources may be forged.
"""

import json
import socket
import sys
import time

ALL_PROTOCOLS, IPV6_TYPE = 3, 0x86DD


def main():
    sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sender.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV6_TYPE))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        drain(listener, 0)
        for text in order["send"]:
            packet = bytes.fromhex(text)
            sender.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
            time.sleep(order.get("gap_s", 0.01))
        replies = drain(listener, order["wait_s"], order.get("enough"))
        print(json.dumps({"replies": [reply.hex() for reply in replies]}), flush=True)


def drain(listener, wait_s, enough=None):
    """Incoming packets with next header 140 until time is up or there are enough."""
    found, deadline = [], time.monotonic() + wait_s
    while enough is None or len(found) < enough:
        listener.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            packet, address = listener.recvfrom(65535)
        except TimeoutError:
            break
        # Type 4 is what this node itself sent.
        if address[2] != 4 and len(packet) > 40 and packet[6] == 140:
            found.append(packet)
    return found


if __name__ == "__main__":
    main()
