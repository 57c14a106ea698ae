"""A TUN device that puts the shim between this machine's kernel and its own port, so that real sessions use it.

What the kernel sends to the peers' prefixes comes here, between the ULIDs; the host wraps it when its context says so.
What arrives wrapped is given to the kernel as if the shim were part of it. Packets between the ULIDs themselves that
arrive on the port reach the kernel by themselves.
"""

import fcntl
import os
import struct
import subprocess

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SO_MARK = 36
MARK = 140  # our own packets, wrapped or not, must not come here again
TABLE = 140
MTU = 1492  # the payload header has to fit on the port


class Tun:
    def __init__(self, name, ulid, prefixes):
        self.file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        ip("link", "set", name, "mtu", str(MTU), "up")
        for prefix in prefixes:
            ip("-6", "route", "replace", prefix, "dev", name, "src", str(ulid), "table", str(TABLE))
        # Left behind by an earlier run that was killed, perhaps.
        forget_rules()
        ip("-6", "rule", "add", "not", "fwmark", str(MARK), "table", str(TABLE), "priority", "100")

    def close(self):
        """Leaves the kernel as it was: the routes go with the device, the rule would stay."""
        forget_rules()
        os.close(self.file)

    def fileno(self):
        return self.file

    def read(self, most=64):
        """Packets the kernel has sent, a few at a time."""
        for _ in range(most):
            try:
                yield os.read(self.file, 65535)
            except BlockingIOError:
                return

    def write(self, octets):
        os.write(self.file, octets)


def forget_rules():
    while subprocess.run(["ip", "-6", "rule", "del", "table", str(TABLE)], capture_output=True).returncode == 0:
        pass


def ip(*words):
    subprocess.run(["ip", *words], check=True)
