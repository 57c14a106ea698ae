"""A small lab of its own for routes: one box with an inner router and a provider that run real routing daemons, and a second site.

    h1 ── inner ── box ── isp ── far ── h2
          ospf6d  ospf6d bgpd
                  bgpd

`box` shares both its ports with its kernel (`ps-lan`, `ps-x`), where its routing daemon lives. `far` is a box of another site
without any of this. The daemons are FRR's, or BIRD in the box.
"""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from common import box, net, plan

FRR = Path("/usr/lib/frr")
NODES = ("h1", "inner", "box", "isp", "far", "h2")
FAST = """
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
"""
HELLO = "ipv6 ospf6 hello-interval 1\n ipv6 ospf6 dead-interval 4\n"

LAN = "fc00:a:0:1::"  # hosts, behind the inner router
TRANSIT = "fc00:a:0:9::"  # between the inner router and the box
LINK = "2001:db8:a1:ffff::"  # between the box and its provider
FAR_LINK = "2001:db8:b1:ffff::"
BLOCK = "2001:db8:a1::/48"


@dataclass(frozen=True)
class Site:
    """What `pslab.box` has to know of a site."""

    name: str
    box: str
    run_dir: Path

    @property
    def config(self):
        return self.run_dir / "site.toml"


def run_dir():
    return plan.RUN_DIR.parent / f"{plan.RUN_DIR.name}-routes"


def namespace(node):
    return f"{plan.INSTANCE}-r-{node}"


def inside(node, command):
    return ["nsenter", f"--net=/run/netns/{namespace(node)}", "--", *map(str, command)]


def run_in(node, *command, **options):
    return net.run(inside(node, command), **options)


def lines_in(node, text):
    """Lines for `ip -6 -batch`."""
    run_in(node, "ip", "-6", "-batch", "-", input=text)


class Network:
    """Namespaces, links, two boxes; daemons come on top."""

    def __init__(self, extra=""):
        self.folder = run_dir()
        self.processes = {}
        self.hosts = {}
        self.extra = extra
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.near = Site("a", "box", self.folder / "box")
        self.far = Site("b", "far", self.folder / "far")

    # --- up and down ---

    def up(self):
        remove()
        for site in (self.near, self.far):
            site.run_dir.mkdir(parents=True, exist_ok=True)
        for node in NODES:
            net.run(["ip", "netns", "add", namespace(node)])
            keys = {"accept_dad": 0, "dad_transmits": 0, "accept_ra": 0, "router_solicitations": 0}
            script = [f"echo {value} > /proc/sys/net/ipv6/conf/default/{key}" for key, value in keys.items()]
            run_in(node, "sh", "-ec", "\n".join([*script, "ip link set lo up"]))
        links = [
            ("h1", "eth0", "inner", "hosts0"),
            ("inner", "box0", "box", "lan0"),
            ("box", "x0", "isp", "cust0"),
            ("isp", "far0", "far", "x0"),
            ("far", "lan0", "h2", "eth0"),
        ]
        for node, port, other, other_port in links:
            ends = ["netns", namespace(node), "type", "veth", "peer", "name", other_port, "netns", namespace(other)]
            net.run(["ip", "link", "add", "name", port, *ends])
        for node, port, other, other_port in links:
            for where, name in ((node, port), (other, other_port)):
                if where in ("box", "far"):
                    # The port is the box's; the kernel behind it has an interface of its own.
                    run_in(where, "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
                    run_in(where, "ip", "link", "set", name, "promisc", "on")
                run_in(where, "ethtool", "-K", name, *"rx off tx off sg off tso off gso off gro off".split(), check=False)
                run_in(where, "ip", "link", "set", name, "up")
        for node in ("inner", "isp"):
            run_in(node, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        self.write_configurations()
        self.address()
        for site in (self.near, self.far):
            self.start_box(site)
        for site in (self.near, self.far):
            self.wait_status(site, lambda status: status["ready"])
        return self

    def down(self):
        """Ends everything, and waits for those who are children of this process."""
        remove()
        for process in self.processes.values():
            process.wait(10)

    def write_configurations(self):
        """Hosts first, since peers are named by their addresses."""
        self.near.config.write_text(near_text(self.near, self.extra))
        self.far.config.write_text(far_text(self.far))
        for site, name in ((self.near, "h1"), (self.far, "h2")):
            done = net.run([box.binary("pshim6ctl"), "--config", str(site.config), "host", "add", name, "--json"])
            self.hosts[name] = json.loads(done.stdout)
        for site, other in ((self.near, "h2"), (self.far, "h1")):
            locators = ", ".join(f'"{it}"' for it in self.hosts[other]["locators"])
            peer = f'[[peer]]\nname = "{other}"\nulid = "{self.hosts[other]["ulid"]}"\nlocators = [{locators}]\n'
            site.config.write_text(site.config.read_text() + peer)

    def address(self):
        ulid = {name: host["ulid"] for name, host in self.hosts.items()}
        lines_in("h1", f"addr add {ulid['h1']}/64 dev eth0\nroute add default via {LAN}1 dev eth0\n")
        lines_in("inner", f"addr add {LAN}1/64 dev hosts0\naddr add {TRANSIT}1/64 dev box0\n")
        isp = f"addr add {LINK}1/64 dev cust0\naddr add {FAR_LINK}1/64 dev far0\n"
        lines_in("isp", f"{isp}route add 2001:db8:b1:1::/64 via {FAR_LINK}2 dev far0\n")
        lines_in("h2", f"addr add {ulid['h2']}/64 dev eth0\nroute add default via fc00:b:0:1::1 dev eth0\n")

    # --- boxes ---

    def start_box(self, site, *arguments):
        with open(site.run_dir / "log", "ab") as log:
            process = subprocess.Popen(
                inside(site.box, [box.binary("pshim6d"), "--config", site.config, *arguments]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "RUNTIME_DIRECTORY": str(self.folder)},
            )
        self.processes[site.box] = process
        return process

    def end_box(self, site, number=signal.SIGKILL):
        """Sends a signal and waits for the end. Returns the seconds it took."""
        began = time.monotonic()
        process = self.processes.pop(site.box)
        process.send_signal(number)
        process.wait(20)
        return time.monotonic() - began

    def ctl(self, site, *arguments, check=True):
        command = [box.binary("pshim6ctl"), "--config", str(site.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=30)

    def status(self, site):
        done = self.ctl(site, "status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def counters(self, site):
        return json.loads(self.ctl(site, "counters", "--all", "--json").stdout)["counters"]

    def wait_status(self, site, wanted, timeout_s=20.0):
        return wait(lambda: (status := self.status(site)) and wanted(status) and status, timeout_s,
                    lambda: f"{site.box}: {self.status(site)}\n{self.log(site)}")

    def log(self, site, lines=25):
        path = site.run_dir / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # --- routing daemons ---

    def frr(self, node, daemon, text):
        """Starts one daemon of FRR's in a node. zebra comes first, the others talk to it."""
        folder = self.folder / f"frr-{node}"
        if not folder.exists():
            folder.mkdir(mode=0o755)
            account = pwd.getpwnam("frr")
            os.chown(folder, account.pw_uid, account.pw_gid)
            # Without asking PAM who we are.
            (folder / "vtysh.conf").write_text("username root nopassword\nno service integrated-vtysh-config\n")
        (folder / f"{daemon}.conf").write_text(f"hostname {node}\nlog file {folder}/{daemon}.log\n{text}")
        paths = ["-f", folder / f"{daemon}.conf", "-i", folder / f"{daemon}.pid", "-z", folder / "zserv.api"]
        more = ["--vty_socket", folder, "-A", "::1", "-P", "0"] + (["-p", "179"] if daemon == "bgpd" else [])
        more += ["--bfdctl", folder / "bfdd.sock"] if daemon == "bfdd" else []
        out = open(folder / f"{daemon}.out", "ab")
        with out:
            process = subprocess.Popen(
                inside(node, [FRR / daemon, *paths, *more]), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )
        self.processes[f"{node}-{daemon}"] = process
        wait(lambda: (folder / f"{daemon}.vty").exists() or process.poll() is not None, 10, lambda: f"{daemon} in {node}")
        if process.poll() is not None:
            raise net.LabError(f"{daemon} in {node}: {(folder / f'{daemon}.out').read_text()}")

    def vtysh(self, node, command, daemon):
        folder = self.folder / f"frr-{node}"
        done = net.run(["vtysh", "--config_dir", str(folder), "--vty_socket", str(folder), "-d", daemon, "-c", command], check=False, timeout=10)
        return done.stdout

    def bird(self, node, text):
        folder = self.folder / f"bird-{node}"
        folder.mkdir(exist_ok=True)
        (folder / "bird.conf").write_text(text)
        log = open(folder / "bird.out", "ab")
        with log:
            self.processes[f"{node}-bird"] = subprocess.Popen(
                inside(node, ["bird", "-f", "-c", folder / "bird.conf", "-s", folder / "bird.ctl", "-P", folder / "bird.pid"]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )

    def birdc(self, node, command):
        return net.run(["birdc", "-s", str(self.folder / f"bird-{node}" / "bird.ctl"), *command.split()], check=False).stdout

    def stop_daemons(self, node):
        for name in [name for name in self.processes if name.startswith(f"{node}-")]:
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        shutil.rmtree(self.folder / f"frr-{node}", ignore_errors=True)
        shutil.rmtree(self.folder / f"bird-{node}", ignore_errors=True)

    # --- looking ---

    def routes(self, node, *what):
        done = run_in(node, "ip", "-6", "-j", "route", "show", *what, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []

    def route_to(self, node, prefix):
        """A node's route to exactly this prefix, or None."""
        return next((route for route in self.routes(node, prefix) if route.get("dst") == prefix), None)

    def links(self, node):
        return {link["ifname"]: link for link in json.loads(run_in(node, "ip", "-j", "link").stdout)}

    def ping(self, node, target, count=3, wait_s=3):
        command = ["ping", "-6", "-n", "-c", count, "-i", "0.2", "-W", wait_s, target]
        return run_in(node, *command, check=False)


def wait(condition, timeout_s, told, step_s=0.05):
    """Waits for something that is true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {told()}")
        time.sleep(step_s)
    return found


def remove():
    """Everything of it, also after a crash."""
    for node in NODES:
        done = net.run(["ip", "netns", "pids", namespace(node)], check=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            pids = [int(word) for word in done.stdout.split() if os.path.exists(f"/proc/{word}")]
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline and any(alive(pid) for pid in pids):
                time.sleep(0.02)
        net.run(["ip", "netns", "del", namespace(node)], check=False)
    shutil.rmtree(run_dir(), ignore_errors=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


# --- configurations -------------------------------------------------------------------------------------------------


def head(site, number, prefix, lan):
    return f"""[box]
name = "{site.box}"
id = {number}
control_socket = "{site.run_dir}/control.sock"
hosts_file = "hosts.json"

[eal]
memory_mb = 128

[site]
prefix = "{prefix}"
lan = "{lan}"
port = "lan"

[reap]
send_timeout_s = 3
"""


def near_text(site, extra):
    return f"""{head(site, 1, "fc00:a::/48", f"{LAN}/64")}
[[port]]
name = "lan"
device = "net_af_packet0,iface=lan0,qdisc_bypass=1"
addresses = ["{TRANSIT}2/64", "fe80::1/64"]
interface = "ps-lan"
interface_addresses = ["{TRANSIT}5/64"]

[[port]]
name = "x"
device = "net_af_packet1,iface=x0,qdisc_bypass=1"
addresses = ["{LINK}2/64"]
interface = "ps-x"
interface_addresses = ["{LINK}5/64"]

[[provider]]
name = "x"
port = "x"
prefix = "2001:db8:a1:1::/64"
delegated = "{BLOCK}"
next_hop = "{LINK}1"

{extra or "[routes]"}

"""


def far_text(site):
    return f"""{head(site, 2, "fc00:b::/48", "fc00:b:0:1::/64")}
[[port]]
name = "lan"
device = "net_af_packet0,iface=lan0,qdisc_bypass=1"
addresses = ["fc00:b:0:1::1/64"]

[[port]]
name = "x"
device = "net_af_packet1,iface=x0,qdisc_bypass=1"
addresses = ["{FAR_LINK}2/64"]

[[provider]]
name = "x"
port = "x"
prefix = "2001:db8:b1:1::/64"
next_hop = "{FAR_LINK}1"

"""


def start_routers(network, bfd=False):
    """FRR in the inner router and at the provider; with BFD, three times a tenth of a second."""
    for node in ("inner", "isp"):
        network.frr(node, "zebra", "")
        if bfd:
            network.frr(node, "bfdd", FAST)
    network.frr("inner", "ospf6d", f"""
interface box0
 ipv6 ospf6 area 0.0.0.0
 {"ipv6 ospf6 bfd profile fast" if bfd else "!"}
 {HELLO}!
interface hosts0
 ipv6 ospf6 area 0.0.0.0
 ipv6 ospf6 passive
!
router ospf6
 ospf6 router-id 10.0.0.9
""")
    network.frr("isp", "bgpd", f"""
router bgp 65000
 bgp router-id 10.0.0.8
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor {LINK}5 remote-as 65001
 neighbor {LINK}5 timers 1 3
 neighbor {LINK}5 timers connect 1
 {f"neighbor {LINK}5 bfd profile fast" if bfd else "!"}
 address-family ipv6 unicast
  neighbor {LINK}5 activate
""")


def start_frr(network, bfd=False):
    """FRR in the box: what docs/operations.md shows."""
    network.frr("box", "zebra", "")
    if bfd:
        network.frr("box", "bfdd", FAST)
    network.frr("box", "ospf6d", f"""
interface ps-lan
 ipv6 ospf6 area 0.0.0.0
 {"ipv6 ospf6 bfd profile fast" if bfd else "!"}
 {HELLO}!
ipv6 prefix-list INSIDE seq 5 permit fc00::/7 le 64
route-map INSIDE permit 10
 match ipv6 address prefix-list INSIDE
 set metric 100
!
router ospf6
 ospf6 router-id 10.0.0.1
 redistribute kernel route-map INSIDE
""")
    network.frr("box", "bgpd", f"""
ipv6 prefix-list OUTSIDE seq 5 permit 2000::/3 le 64
route-map OUTSIDE permit 10
 match ipv6 address prefix-list OUTSIDE
!
router bgp 65001
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor {LINK}1 remote-as 65000
 neighbor {LINK}1 timers 1 3
 neighbor {LINK}1 timers connect 1
 {f"neighbor {LINK}1 bfd profile fast" if bfd else "!"}
 address-family ipv6 unicast
  redistribute kernel route-map OUTSIDE
  neighbor {LINK}1 activate
""")


def start_bird(network):
    """BIRD in the box: what docs/operations.md shows."""
    network.bird("box", f"""
router id 10.0.0.1;
protocol device {{ scan time 2; }}
protocol kernel {{
  learn;
  ipv6 {{ import all; export where source ~ [ RTS_OSPF, RTS_OSPF_IA, RTS_OSPF_EXT1, RTS_OSPF_EXT2, RTS_BGP ]; }};
  scan time 1;
}}
filter inside {{
  if source = RTS_INHERIT && net ~ [ fc00::/7+ ] then {{
    ospf_metric2 = krt_metric;
    accept;
  }}
  reject;
}}
filter outside {{
  if source = RTS_INHERIT && net ~ [ 2000::/3+ ] then {{
    bgp_med = krt_metric;
    accept;
  }}
  reject;
}}
protocol ospf v3 {{
  ipv6 {{ import all; export filter inside; }};
  area 0 {{
    interface "ps-lan" {{ hello 1; dead 4; type broadcast; }};
  }};
}}
protocol bgp isp {{
  local {LINK}5 as 65001;
  neighbor {LINK}1 as 65000;
  hold time 3;
  connect retry time 1;
  ipv6 {{ import all; export filter outside; next hop self; }};
}}
""")
