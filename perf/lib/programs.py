"""The programs that are measured and those that measure: started, told what to do, and ended."""

import json
import os
import re
import select
import shutil
import subprocess
import threading
import time
import tty
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "target" / "release"
PATIENCE = 90  # seconds for anything that is asked


class Failed(Exception):
    """A program did not do what it was asked."""


def build(parts):
    """Builds what these parts measure."""
    cargo = [str(ROOT / "scripts" / "cargo"), "build", "--release"]
    if "stages" in parts:
        subprocess.run([*cargo, "-p", "dataplane", "--example", "translation"], cwd=ROOT, check=True)
    if "failover" in parts:
        subprocess.run([*cargo, "-p", "dataplane", "--example", "failover"], cwd=ROOT, check=True)
    if "handshakes" in parts:
        subprocess.run([*cargo, "-p", "control", "--example", "handshakes"], cwd=ROOT, check=True)
    if set(parts) - {"stages", "failover", "handshakes"}:
        subprocess.run([*cargo, "-p", "perf-gen", "--bins"], cwd=ROOT, check=True)


def tool(name):
    """Where an installed program is; None if it is not there."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def ahead():
    """Puts what is measured before everything else on the machine, where that is allowed: it polls on cores of its own,
    and whatever else ran there would be measured too."""
    os.setsid()
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -19)
        # Where the kernel shares cores out between sessions, priority within one means nothing to another.
        Path("/proc/self/autogroup").write_text("-19")
    except OSError:
        pass


def waited(process, name):
    """Microseconds for which others ran on the cores of a process's polling threads, whose names begin with `name`."""
    sum = 0
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        try:
            if (thread / "comm").read_text().startswith(name):
                sum += int((thread / "schedstat").read_text().split()[1]) // 1000
        except OSError:
            pass  # it ended
    return sum


class Program:
    """A process with a pipe to its standard input and one from its standard output."""

    def __init__(self, command):
        self.name = Path(command[0]).name
        self.errors = []
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=ahead,
        )
        # A pipe that nobody empties would stop the program.
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def write(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            self.fail("does not listen")

    def read(self):
        """The next line, within PATIENCE."""
        found = []
        reader = threading.Thread(target=lambda: found.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(PATIENCE)
        if not found or not found[0]:
            self.fail("says nothing")
        return found[0]

    def fail(self, what):
        self.process.kill()
        raise Failed(f"{self.name} {what}\n{''.join(self.errors[-12:])}")

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.write("quit\n")
                self.process.stdin.close()
            except OSError:
                pass
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Talker(Program):
    """One of ours: commands in, a line of JSON out."""

    def ask(self, line):
        self.write(line)
        return self.answer()

    def answer(self):
        return json.loads(self.read())


class Box(Talker):
    """`perf-box`: the real worker, resting until it is started."""

    title = "box"
    polling = "worker-"

    def __init__(self, near, far, contexts, cores, setup):
        words = [BUILT / "perf-box", "--site", near, "--provider", far, "--contexts", contexts]
        super().__init__([*words, "--cores", ",".join(map(str, cores)), *setup.words()])
        self.ready = self.answer()
        # The first thread stands for the control core. Where a machine has but two, it shares one with the generator, and
        # takes of it what is left.
        os.setpriority(os.PRIO_PROCESS, self.process.pid, 0)

    def start(self):
        self.write("start")

    def stop(self):
        self.write("stop")

    def sample(self, seconds, ports=(True, True)):
        """Packets per second that came in at these of the two ports and were translated. All have to be, but for what finds
        no room between workers: replayed frames cannot be held back, so a worker that waits for its core makes others lose."""
        found = self.ask(f"sample {seconds}")
        drops = dict(found["drops"])
        for reason in () if all(ports) else ("NotIpv6", "WrongMac"):
            drops.pop(reason, None)
        full = drops.pop("RingFull", 0)
        if drops:
            raise Failed(f"the box dropped packets: {drops}")
        received = sum(count for count, wanted in zip(found["received"], ports) if wanted)
        # What was under way at the start or the end may be counted on one side alone.
        if abs(found["translated"] + full - received) > 8192:
            raise Failed(f"the box did not translate all it received: {found}")
        return found["translated"] / found["seconds"]


class Generator(Talker):
    """`perf-gen`, at the other ends of one or more pairs of devices."""

    def __init__(self, pairs, cores, setup):
        words = [BUILT / "perf-gen", "--cores", ",".join(map(str, cores)), *setup.words()]
        for near, far in pairs:
            words += ["--near", near, "--far", far]
        super().__init__(words)
        self.answer()

    def begin(self, **what):
        self.write("trial " + json.dumps(what))

    def end(self):
        found = self.answer()
        if found["wrong"] or found["surplus"]:
            raise Failed(f"frames came back that nobody should have sent: {found}")
        return found


class Testpmd:
    """`dpdk-testpmd`, resting until it is started; forwards as it is told to."""

    prompt = "testpmd> "
    polling = "rte-worker"
    serial = 0

    def __init__(self, devices, cores, setup):
        main = next(core for core in range(os.cpu_count()) if core not in cores) if len(cores) < os.cpu_count() else cores[0]
        program = tool("dpdk-testpmd")
        if not program:
            raise Failed("dpdk-testpmd is not installed (scripts/install-deps --measure)")
        # Lcore 0 is its console, and sleeps; the others forward.
        lcores = ",".join([f"0@{main}", *(f"{at}@{core}" for at, core in enumerate(cores, 1))])
        words = [program, "--lcores", lcores, "--in-memory", "--single-file-segments", "--no-pci", "--no-telemetry"]
        words += ["--log-level", "*:error", "-m", setup.memory, "--file-prefix", f"perf-testpmd-{os.getpid()}"]
        for device in devices:
            words += ["--vdev", device]
        queues = len(cores)
        words += ["--", "-i", f"--nb-cores={len(cores)}", f"--rxq={queues}", f"--txq={queues}", "--burst=32", "--no-lsc-interrupt"]
        words += [f"--rxd={setup.descriptors}", f"--txd={setup.descriptors}", "--mbcache=256", "--no-flush-rx"]
        words += [f"--total-num-mbufs={setup.buffers}", f"--mbuf-size={setup.room + 128}"]
        # To a pipe it would say things only when it has said much.
        self.terminal, theirs = os.openpty()
        tty.setraw(theirs)
        words = [str(word) for word in words]
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=ahead)
        os.close(theirs)
        self.devices = devices
        self._until(self.prompt)

    def _until(self, mark):
        """What it says before and including the mark."""
        said, deadline = "", time.monotonic() + PATIENCE
        while mark not in said:
            ready, _, _ = select.select([self.terminal], [], [], 0.5)
            try:
                said += os.read(self.terminal, 65536).decode(errors="replace") if ready else ""
            except OSError:
                deadline = 0
            if time.monotonic() > deadline:
                self.process.kill()
                raise Failed(f"dpdk-testpmd ended or says nothing: {said[-800:]}")
        return said

    def ask(self, line):
        # A comment is answered by nothing but a new prompt with its echo, and that comes last.
        self.serial += 1
        mark = f"# {self.serial} "
        os.write(self.terminal, f"{line}\n{mark}\n".encode())
        return self._until(mark)

    def mode(self, mode):
        self.ask(f"set fwd {mode}")

    def start(self):
        self.ask("start")

    def stop(self):
        self.ask("stop")

    def sample(self, seconds, ports=(True, True)):
        """Packets per second that came in at these of the two ports, by the rate its own clock gives between two looks."""
        self.ask("show port stats all")
        time.sleep(seconds)
        said = self.ask("show port stats all")
        rates = [int(rate) for rate in re.findall(r"Rx-pps:\s+(\d+)", said)]
        if len(rates) != len(self.devices):
            raise Failed(f"dpdk-testpmd shows no rates: {said[-400:]}")
        return float(sum(rate for rate, wanted in zip(rates, ports) if wanted))

    def close(self):
        try:
            os.write(self.terminal, b"quit\n")
            while os.read(self.terminal, 65536):
                pass
        except OSError:
            pass  # the terminal ends with the program
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Setup:
    """Memory for a program with DPDK devices."""

    def __init__(self, buffers=16383, room=2048, descriptors=512):
        self.buffers, self.room, self.descriptors = buffers, room, descriptors
        # A buffer has a header of its own, one of the pool's, and room in front; the rest is for queues and rings.
        self.memory = 2 * -(-(buffers * (room + 128 + 128 + 64 + 64) * 105 // 100 + (96 << 20)) // (2 << 20))

    def words(self):
        return ["--memory", self.memory, "--buffers", self.buffers, "--room", self.room, "--descriptors", self.descriptors]
