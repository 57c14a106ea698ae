#!/usr/bin/env python3
"""The service: the unit's own restrictions around a box that works, what the service manager hears, what a reload takes over,
the doctor and the commands it prints, and the package."""

import ctypes
import grp
import gzip
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from common import SITES, LabTest, box, lab, need_boxes, net, plan

PACKAGING = plan.ROOT / "packaging"
UNIT = PACKAGING / "systemd" / "pshim6.service"
# Numbers that no account of the machine needs to have.
DAEMON, READERS, STRANGER = 64901, 64902, 64903
# The watchdog is told four times as often as it must be.
WATCHDOG_S = 2.0
EXPOSURE_MAX = 30  # of 100, as `systemd-analyze security` counts


def setUpModule():
    need_boxes()


class Manager:
    """Plays systemd for one box: listens at the notification socket and starts the daemon as the unit says."""

    def __init__(self, site):
        self.site = site
        self.folder = site.run_dir / "service"
        self.folder.mkdir(mode=0o755)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.folder / "notify"))
        os.chmod(self.folder / "notify", 0o666)
        self.process = self.pid = None
        # Copies, since the checkout may be where only root comes.
        for file in (plan.ROOT / "scripts" / "pslab" / "unit.py", box.binary("pshim6d"), box.binary("pshim6ctl")):
            shutil.copy(file, self.folder)

    def start(self):
        folders = ["--runtime", str(self.folder / "run"), "--state", str(self.folder / "state")]
        account = ["--uid", str(DAEMON), "--gid", str(DAEMON), "--group", str(READERS)]
        program = [str(self.folder / "pshim6d"), "--config", str(self.site.config)]
        unit = [sys.executable, "-B", str(self.folder / "unit.py"), str(UNIT)]
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        environment["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1e6))
        with open(self.site.run_dir / "pshim6d.log", "ab") as log:
            command = net.inside(self.site.box, [*unit, *account, *folders, "--", *program])
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self.pid = self.process.pid
        (self.site.run_dir / "pshim6d.pid").write_text(f"{self.pid}\n")

    def heard(self, wanted, timeout_s=10.0):
        """Waits for a notification that has this line, and returns all that were heard until then."""
        deadline, all_heard = time.monotonic() + timeout_s, []
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], min(left, 0.2))[0]:
                if not os.path.exists(f"/proc/{self.pid}"):
                    break
                continue
            all_heard.append(self.socket.recv(4096).decode())
            if any(line.startswith(wanted) for line in all_heard[-1].splitlines()):
                return all_heard
        raise AssertionError(f"no {wanted} within {timeout_s} s, only {all_heard}:\n{box.log_tail(self.site)}")

    def listen(self, seconds):
        """Everything that is heard in this time."""
        deadline, heard = time.monotonic() + seconds, []
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                heard += self.socket.recv(4096).decode().splitlines()
        return heard

    def drain(self):
        """Forgets what was said so far."""
        while select.select([self.socket], [], [], 0)[0]:
            self.socket.recv(4096)

    def status(self):
        """The process as the kernel describes it."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def thread(self, name):
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == name:
                return int(task.name)
        raise AssertionError(f"no thread {name}")

    def close(self):
        box.kill(self.site)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.socket.close()


class Frozen:
    """One thread of a process stands still, the others run on: what SIGSTOP cannot do, and a tracer can."""

    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, tid):
        self.tid = tid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long

    def ask(self, request):
        if self.libc.ptrace(request, self.tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {self.tid}")

    def __enter__(self):
        self.ask(self.SEIZE)
        self.ask(self.INTERRUPT)
        os.waitpid(self.tid, self.WALL)
        return self

    def __exit__(self, *_):
        self.ask(self.DETACH)


class Service(LabTest):
    """Site a's box under its unit, site b's as ever."""

    @classmethod
    def setUpClass(cls):
        # Also when something below fails.
        cls.addClassCleanup(lab.down, say=lambda _: None)
        super().setUpClass()
        site = SITES["a"]
        box.kill(site)
        cls.manager = Manager(site)
        cls.addClassCleanup(cls.manager.close)
        text = site.config.read_text()
        text = text.replace(f'"{site.control_socket}"', f'"{cls.manager.folder}/run/control.sock"')
        text += f'[manage]\nread_socket = "{cls.manager.folder}/run/read.sock"\nread_group = "{READERS}"\n'
        text += f'[store]\nfile = "{cls.manager.folder}/state/leases"\n[dhcp]\n[routes]\n'
        # An interface of the kernel's, made by an account without root that may not write to /proc/sys.
        text = text.replace('name = "lan"\n', 'name = "lan"\ninterface = "ps-lan"\n')
        net.exec_in(site.box, ["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
        site.config.write_text(text)
        # As in /etc/pshim6: readable by the daemon's group.
        os.chown(site.run_dir / "hosts.json", 0, DAEMON)
        cls.manager.start()
        cls.beginning = cls.manager.heard("READY=1", timeout_s=20)
        box.wait_ready(site)

    def ctl(self, *arguments):
        return box.ctl_process(SITES["a"], arguments)

    def routes(self):
        """Destinations of the box's own routes in the kernel."""
        done = net.exec_in(SITES["a"].box, ["ip", "-6", "-j", "route", "show", "proto", "201"])
        return [route["dst"] for route in json.loads(done.stdout or "[]")]

    def test_1_ready_under_the_units_account_and_capabilities_alone(self):
        status = self.manager.status()
        self.assertEqual(set(status["Uid"].split()), {str(DAEMON)})
        self.assertEqual(status["Groups"].split(), [str(DAEMON), str(READERS)])
        # CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13.
        for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0x3000, kind)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        # A file of the machine's that the daemon may not write to, whoever it is.
        readonly = Path(f"/proc/{self.manager.pid}/mountinfo").read_text()
        roots = [line.split()[5].split(",") for line in readonly.splitlines() if line.split()[4] == "/"]
        self.assertTrue(all("ro" in options for options in roots), roots)
        heard = self.beginning + self.manager.listen(1)
        self.assertTrue(any("STATUS=a-box: providers up: " in line for line in heard), heard)

    def test_2_the_two_provider_box_works(self):
        self.establish()
        before = self.provider_in_use()
        net.cut(before)
        try:

            def elsewhere():
                reached = self.ping("a-h1", self.ulid("b-h1"), count=2, wait_s=1).returncode == 0
                return reached and self.provider_in_use() != before

            self.wait_until("another provider carries it", elsewhere, 20)
        finally:
            net.heal(before)
        self.assertTrue((self.manager.folder / "state" / "leases").exists(), "the store was not made")
        self.wait_until("the kernel has a route to the inside", lambda: self.routes() == ["fc00::/7"])
        self.assert_no_spoofing()

    def test_3_the_watchdog_is_told_while_every_thread_turns(self):
        self.manager.drain()
        told = self.manager.listen(2 * WATCHDOG_S).count("WATCHDOG=1")
        self.assertTrue(7 <= told <= 9, f"{told} times in {2 * WATCHDOG_S} s, should be each {WATCHDOG_S / 4} s")
        for name in ("worker-0", "pshim6d"):
            with self.subTest(thread=name):
                self.manager.heard("WATCHDOG=1")
                with Frozen(self.manager.thread(name)):
                    # One look may have been under way.
                    self.manager.listen(WATCHDOG_S / 4)
                    self.assertNotIn("WATCHDOG=1", self.manager.listen(WATCHDOG_S))
                    # Nobody is to send to a box whose worker stands still; the control thread sees to that.
                    self.assertEqual(self.routes(), [] if name == "worker-0" else ["fc00::/7"])
                self.manager.heard("WATCHDOG=1")
                self.wait_until("the kernel has a route again", lambda: self.routes() == ["fc00::/7"])
        self.assertIn("a worker stands still", box.log_tail(SITES["a"], 200))

    def test_4_a_reload_takes_over_or_names_what_needs_a_restart(self):
        site = SITES["a"]
        text = site.config.read_text()
        self.addCleanup(site.config.write_text, text)
        self.assertIn('log = "info"', text)
        site.config.write_text(text.replace('log = "info"', 'log = "info,control::driver=debug"\npolicy_file = "p.json"'))
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertEqual(self.ctl("reload").returncode, 0)
        heard = "\n".join(self.manager.heard("READY=1"))
        since = int(re.search(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", heard).group(1))
        self.assertTrue(before <= since < before + 5e6, (before, since))
        site.config.write_text(text.replace("workers = 1", "workers = 2").replace('id = 1', 'id = 3'))
        refused = self.ctl("reload")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("needs a restart: box.id, box.workers", refused.stderr)
        # Refused or not, the service is ready again.
        self.manager.heard("READY=1")
        self.assert_pings("a-h1", SITES["a"].box_address)

    def test_5_root_adds_a_host_and_the_daemon_reads_it(self):
        hosts = box.ctl_json(SITES["a"], "status")["hosts"]
        done = self.ctl("host", "add", "late", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(json.loads(done.stdout)["daemon_reloaded"])
        self.assertEqual(box.ctl_json(SITES["a"], "status")["hosts"], hosts + 1)

    def test_6_the_sockets_belong_to_their_groups(self):
        run = self.manager.folder / "run"
        for name, group in (("control.sock", DAEMON), ("read.sock", READERS)):
            found = (run / name).stat()
            self.assertEqual((found.st_uid, found.st_gid, found.st_mode & 0o777), (DAEMON, group, 0o660), name)

        def asks(group, *arguments):
            setpriv = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={group}", "--"]
            ctl = [str(self.manager.folder / "pshim6ctl"), "--config", str(SITES["a"].config)]
            return subprocess.run([*setpriv, *ctl, *arguments], capture_output=True, text=True)

        self.assertEqual(asks(READERS, "status").returncode, 0)
        self.assertEqual(asks(READERS, "reload").returncode, 4)
        self.assertEqual(asks(DAEMON, "provider", "x", "restore").returncode, 0)
        self.assertEqual(asks(STRANGER, "status").returncode, 4)

    def test_7_another_process_takes_over_as_the_service(self):
        old = self.manager.pid
        rights = {name: self.manager.status()[name] for name in ("Uid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
        self.manager.drain()
        done = self.ctl("upgrade")
        self.assertEqual(done.returncode, 0, done.stderr)
        heard = "\n".join(self.manager.heard("MAINPID="))
        self.manager.pid = int(re.search(r"MAINPID=(\d+)", heard).group(1))
        (SITES["a"].run_dir / "pshim6d.pid").write_text(f"{self.manager.pid}\n")
        self.assertNotIn("STOPPING=1", heard)
        self.assertEqual(self.manager.process.wait(10), 0)
        self.assertNotEqual(self.manager.pid, old)
        status = self.manager.status()
        self.assertEqual({name: status[name] for name in rights}, rights)
        self.assertEqual(self.routes(), ["fc00::/7"])
        # The watchdog hears of the new one.
        self.manager.drain()
        self.manager.heard("WATCHDOG=1", timeout_s=WATCHDOG_S)
        self.assert_pings("a-h1", SITES["a"].box_address)

    def test_9_it_says_that_it_stops(self):
        self.manager.drain()
        os.kill(self.manager.pid, signal.SIGTERM)
        self.manager.heard("STOPPING=1")
        self.wait_until("it ends", lambda: box.pid(SITES["a"]) is None)
        self.assertEqual(list((self.manager.folder / "run").glob("*.sock")), [], "left behind")
        self.assertEqual(self.routes(), [])



class Doctor(LabTest):
    """Each fault is made, found, and mended by the very command that is printed."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(lab.down, say=lambda _: None)
        super().setUpClass()

    def inside(self, command):
        """Runs a shell command in the box's network, as root there would, with an /etc/sysctl.d of its own."""
        programs = Path(box.binary("pshim6ctl")).parent
        script = f"mount -t tmpfs tmpfs /etc/sysctl.d && export PATH=$PATH:{programs} && {command}"
        return self.run_in(["unshare", "-m", "sh", "-c", script])

    def run_in(self, command):
        """In the box's network, with the /sys that belongs to it."""
        command = ["ip", "netns", "exec", plan.namespace(SITES["a"].box), *command]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    def examined(self):
        """The exit status, and what is not as it should be: text -> finding."""
        command = [box.binary("pshim6ctl"), "--config", str(SITES["a"].config), "doctor", "--json", "--user", "daemon"]
        done = self.run_in(command)
        report = json.loads(done.stdout)
        return done.returncode, {it["text"]: it for it in report["findings"] if it["verdict"] != "ok"}

    def breaks_and_mends(self, breaking, *wanted):
        """`wanted` are topic and verdict of what is found because of it."""
        status, before = self.examined()
        done = self.inside(breaking)
        self.assertEqual(done.returncode, 0, done.stderr)
        deadline = time.monotonic() + 5
        while True:
            # What the daemon itself has to notice takes a moment.
            broken, found = self.examined()
            new = [it for text, it in found.items() if text not in before]
            if sorted((it["topic"], it["verdict"]) for it in new) == sorted(wanted):
                break
            self.assertLess(time.monotonic(), deadline, f"{breaking}: {new}")
            time.sleep(0.1)
        self.assertEqual(broken, 1 if "fail" in [it["verdict"] for it in found.values()] else 0)
        for finding in filter(lambda it: "mend" in it, new):
            mended = self.inside(finding["mend"])
            self.assertEqual(mended.returncode, 0, f"{finding['mend']}: {mended.stderr}")
        # Links come back with the next look at them.
        self.wait_until(f"mended: {[it.get('mend') for it in new]}", lambda: self.examined() == (status, before), 6)

    def setUp(self):
        site = SITES["a"]
        # What the lab leaves as root alone uses it, and a daemon with an account of its own could not read.
        os.chown(site.run_dir / "hosts.json", 0, grp.getgrnam("daemon").gr_gid)

    def test_faults_of_interfaces(self):
        self.breaks_and_mends("ip link set x0 mtu 1400", ("interface", "fail"))
        self.breaks_and_mends("ethtool -K x0 gro on", ("interface", "fail"))
        self.breaks_and_mends("sysctl -q -w net.ipv6.conf.x0.disable_ipv6=0", ("kernel", "warn"))
        # Past the box, untranslated: two interfaces, both are named.
        both = "sysctl -q -w net.ipv6.conf.x0.disable_ipv6=0 net.ipv6.conf.y0.disable_ipv6=0 net.ipv6.conf.all.forwarding=1"
        self.breaks_and_mends(both, ("kernel", "fail"), ("kernel", "fail"))

    def test_a_route_over_a_port(self):
        # One finding for the interface, one for the route; switching IPv6 off takes the route away, so it is mended first.
        done = self.inside("sysctl -q -w net.ipv6.conf.x0.disable_ipv6=0 && ip -6 route add 2001:db8:77::/48 dev x0")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = {it["text"]: it["mend"] for it in self.examined()[1].values() if it["topic"] == "kernel"}
        route = found["has a route to 2001:db8:77::/48 over x0, which is the box's"]
        self.assertEqual(self.inside(route).returncode, 0, route)
        left = {it["text"]: it["mend"] for it in self.examined()[1].values() if it["topic"] == "kernel"}
        self.assertEqual(list(left), [text for text in found if "2001:db8:77::" not in text])
        self.assertEqual(self.inside(next(iter(left.values()))).returncode, 0)
        self.assertFalse([it for it in self.examined()[1].values() if it["topic"] == "kernel"])

    def test_a_link_that_is_down(self):
        self.breaks_and_mends("ip link set y0 down", ("interface", "fail"), ("next hop", "warn"))

    def test_faults_of_files(self):
        site = SITES["a"]
        folder = site.run_dir
        self.breaks_and_mends(f"chgrp root {folder}/hosts.json", ("configuration", "fail"))
        self.breaks_and_mends(f"chmod 700 {folder}", ("configuration", "fail"), ("configuration", "fail"))
        text = site.config.read_text()
        self.addCleanup(site.config.write_text, text)
        site.config.write_text(text.replace("# no key: addresses are HBA-only", 'key = "key.pem"'))
        key = folder / "key.pem"
        status, found = self.examined()
        self.assertEqual(status, 1)
        missing = found[f"{key} is not there"]
        self.assertEqual(self.inside(missing["mend"]).returncode, 0)
        self.breaks_and_mends(f"chmod 644 {key}", ("key", "fail"), ("configuration", "warn"))
        self.breaks_and_mends(f"chown root {key}", ("key", "fail"))
        site.config.write_text(text + '[manage]\ngroup = "daemon"\n')
        self.assertFalse([it for it in self.examined()[1].values() if it["topic"] == "socket"])
        site.config.write_text(text + '[manage]\ngroup = "no-such-group"\n')
        socket = [it["mend"] for it in self.examined()[1].values() if it["topic"] == "socket"]
        self.assertEqual(socket, ["groupadd --system no-such-group && usermod -aG no-such-group daemon"])


class Package(unittest.TestCase):
    """The package, made of the programs the other tests use."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="pshim6-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        programs = Path(box.binary("pshim6d")).parent
        done = net.run([sys.executable, "-B", str(PACKAGING / "build-deb"), "--bin", str(programs), "--out", folder.name, "--quick"])
        cls.package = done.stdout.strip()
        cls.tree = cls.folder / "tree"
        net.run(["dpkg-deb", "-x", cls.package, str(cls.tree)])

    def test_it_holds_what_a_box_needs(self):
        listed = net.run(["dpkg-deb", "-c", self.package]).stdout
        self.assertFalse([line for line in listed.splitlines() if " root/root " not in line], "somebody else's files")
        for path, mode in (
            ("usr/sbin/pshim6d", 0o755),
            ("usr/bin/pshim6ctl", 0o755),
            ("usr/lib/pshim6/port", 0o755),
            ("usr/lib/sysctl.d/60-pshim6.conf", 0o644),
            ("lib/systemd/system/pshim6.service", 0o644),
            ("usr/share/man/man1/pshim6ctl-doctor.1.gz", 0o644),
            ("usr/share/doc/pshim6/operate.md", 0o644),
            ("usr/share/doc/pshim6/examples/site.toml", 0o644),
        ):
            self.assertEqual((self.tree / path).stat().st_mode & 0o777, mode, path)
        # Nothing of the operator's: neither in /etc nor in /var.
        self.assertEqual({path.name for path in self.tree.iterdir()}, {"lib", "usr"})
        depends = net.run(["dpkg-deb", "-f", self.package, "Depends"]).stdout
        for library in ("libc6 (", "librte-eal", "librte-net-af-packet", "libssl3"):
            self.assertIn(library, depends)

    def test_the_same_programs_make_the_same_package(self):
        programs = Path(box.binary("pshim6d")).parent
        command = [sys.executable, "-B", str(PACKAGING / "build-deb"), "--bin", str(programs), "--quick"]
        again = net.run([*command, "--out", str(self.folder / "again")]).stdout.strip()
        self.assertEqual(Path(again).read_bytes(), Path(self.package).read_bytes())

    def test_its_example_is_a_good_configuration(self):
        command = [box.binary("pshim6ctl"), "--config", str(self.tree / "usr/share/doc/pshim6/examples/site.toml"), "check"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_systemd_finds_no_fault_with_the_units(self):
        # A name with colons would be understood as a file and another name for it.
        units = ["pshim6.service", "pshim6-port@eth1.service", "pshim6-vfio@card.service"]
        folder = self.tree / "lib/systemd/system"
        for unit in units[1:]:
            # Below another root it finds no template by the name of an instance.
            shutil.copy(folder / f"{unit.split('@')[0]}@.service", folder / unit)
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={self.tree}", *units]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT)]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-300:])

    def test_its_manual_has_every_option_of_the_daemon(self):
        said = subprocess.run([box.binary("pshim6d"), "--help"], capture_output=True, text=True, check=True).stdout
        page = gzip.decompress((self.tree / "usr/share/man/man8/pshim6d.8.gz").read_bytes()).decode().replace("\\-", "-")
        options = r"--[a-z][a-z-]+"
        self.assertEqual(set(re.findall(options, page)), set(re.findall(options, said)))

    def test_a_card_is_given_to_vfio_and_back(self):
        sys_folder = self.folder / "sys"
        device = sys_folder / "bus/pci/devices/0000:3b:00.0"
        driver = sys_folder / "bus/pci/drivers/ixgbe"
        for folder in (device, driver):
            folder.mkdir(parents=True)
        (device / "driver").symlink_to(driver)
        for file in (device / "driver_override", driver / "unbind", sys_folder / "bus/pci/drivers_probe"):
            file.touch()
        script = [str(self.tree / "usr/lib/pshim6/bind-vfio")]

        def run(*arguments):
            environment = {**os.environ, "SYSFS": str(sys_folder)}
            subprocess.run([*script, *arguments], env=environment, check=True)
            files = (device / "driver_override", driver / "unbind", sys_folder / "bus/pci/drivers_probe")
            return [file.read_text().strip() for file in files]

        self.assertEqual(run("0000:3b:00.0"), ["vfio-pci", "0000:3b:00.0", "0000:3b:00.0"])
        # The kernel would have bound it; from then on there is nothing to do.
        (device / "driver").unlink()
        vfio = sys_folder / "bus/pci/drivers/vfio-pci"
        vfio.mkdir()
        (vfio / "unbind").touch()
        (device / "driver").symlink_to(vfio)
        (driver / "unbind").write_text("")
        self.assertEqual(run("0000:3b:00.0")[1], "")
        self.assertEqual(run("--release", "0000:3b:00.0")[0], "")
        self.assertEqual((vfio / "unbind").read_text().strip(), "0000:3b:00.0")
        missing = subprocess.run([*script, "0000:ff:00.0"], env={**os.environ, "SYSFS": str(sys_folder)}, capture_output=True)
        self.assertEqual(missing.returncode, 1)

    @unittest.skipUnless(shutil.which("lintian"), "lintian is not installed")
    def test_lintian_finds_no_error(self):
        done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", self.package], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
