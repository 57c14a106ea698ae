"""Captures at the customer ports of the providers, where every packet between a site and the world passes.

Control messages are kept whole, payload packets only as far as the Shim6 header and a little more, so that the
capture of a long transfer stays small and a decoder still sees every tag.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from . import net, plan

# In an IPv6 packet whose first Next Header is 140, octet 42 has the P bit.
# In UDP it is octet 50.
UDP = "ip6 proto 17 and udp port 5533"
CONTROL = f"ip6 proto 140 and (ip6[42] & 0x80 = 0) or icmp6 or ({UDP} and (ip6[50] & 0x80 = 0))"
PAYLOAD = f"ip6 proto 140 and (ip6[42] & 0x80 != 0) or ({UDP} and (ip6[50] & 0x80 != 0))"
PID_DIR = plan.RUN_DIR / "captures"


class Capture:
    """tcpdump at some nodes until `stop`; the files are `<folder>/<node>.{control,payload}.pcap`."""

    def __init__(self, folder, providers=None, payload=True):
        self.folder = folder
        self.processes = []
        self.files = []
        os.makedirs(folder, exist_ok=True)
        PID_DIR.mkdir(parents=True, exist_ok=True)
        for name in providers or net.providers_there():
            node = net.provider_named(name).node
            self.start(node, "control", 0, CONTROL)
            if payload:
                self.start(node, "payload", 96, PAYLOAD)
        self.wait_listening()

    def start(self, node, kind, snap, expression):
        path = os.path.join(self.folder, f"{node}.{kind}.pcap")
        command = ["tcpdump", "-i", "cust0", "-n", "-U", "-Z", "root", "-B", "16384", "-s", str(snap), "-w", path]
        if kind == "control":
            # These are few, and a reader of the running capture wants them at once, not a buffer at a time.
            command.append("--immediate-mode")
        log = open(os.path.join(self.folder, f"{node}.{kind}.log"), "w+")
        process = subprocess.Popen(
            net.inside(node, [*command, expression]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        (PID_DIR / f"{node}.{kind}.pid").write_text(str(process.pid))
        self.processes.append((process, log))
        self.files.append(path)

    def wait_listening(self):
        """tcpdump says `listening on` once the socket is open; before that packets are missed."""
        deadline = time.monotonic() + 10
        for process, log in self.processes:
            while "listening on" not in read_all(log):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise net.LabError(f"tcpdump did not start: {read_all(log)}")
                time.sleep(0.02)

    def stop(self):
        """Ends the captures and returns the files. Raises when the kernel dropped packets it should have shown."""
        time.sleep(0.2)
        for process, _ in self.processes:
            process.send_signal(signal.SIGINT)
        lost = []
        for process, log in self.processes:
            process.wait(timeout=10)
            lost += [line for line in read_all(log).splitlines() if "dropped by kernel" in line and line[0] != "0"]
            log.close()
        self.processes = []
        if lost:
            raise net.LabError(f"the capture is incomplete: {'; '.join(lost)}")
        return self.files


def read_all(log):
    log.seek(0)
    return log.read()


def stop_all():
    """Ends captures whose owner died, by the process ids they left."""
    for path in PID_DIR.glob("*.pid") if PID_DIR.exists() else []:
        pid = int(path.read_text() or 0)
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"tcpdump" in command:
            os.kill(pid, signal.SIGINT)
