"""What `scripts/lab` does, as functions, so that the demo and the tests use the very same lab."""

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import box, capture, net, plan, routing, services, stores
from .net import LabError

STATE = plan.RUN_DIR / "state.json"
HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")


@dataclass
class Options:
    """How a lab is brought up."""

    send_timeout: int = 15  # REAP's Send Timeout, seconds; the protocol's default
    workers: int = 1
    boxes: bool = True
    build: bool = True
    log: str = "info"
    core_mtu: int = 1500
    services: bool = False  # DNS servers of the world, and a spare provider for site a
    ha: bool = False  # two boxes for each site, routing daemons, three etcd nodes
    sync: bool = False  # the boxes of a site tell each other their contexts
    active: bool = False  # both boxes of a site have the better metric, and share what comes
    extra: str = ""  # lines at the end of all boxes' configuration


@contextmanager
def locked(timeout_s=60.0):
    """One `up` or `down` of this instance at a time, from whatever checkout. An abstract socket leaves nothing behind."""
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0pshim6-lab-{plan.INSTANCE}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise LabError("another `lab up` or `lab down` is at work") from None
                time.sleep(0.05)
        yield


def check_owner():
    """A lab that another checkout brought up is that one's to take down."""
    try:
        owner = state()["root"]
    except (LabError, KeyError, ValueError):
        return  # None, or one that died too early to say whose it is.
    if owner != str(plan.ROOT) and Path(owner).exists():
        raise LabError(f"a lab of {owner} is up: take it down there, or set PSHIM6_LAB to a name of your own")


def need_root():
    if os.geteuid() != 0:
        raise LabError("network namespaces need root: use sudo")


def up(options, say=print):
    """Brings the lab up; whatever an earlier one left is removed first. Takes itself down when it fails."""
    need_root()
    if options.boxes and options.build:
        build(say)
    with locked():
        check_owner()
        if is_there():
            say("a lab is there already: taking it down first")
            remove()
        started = time.monotonic()
        try:
            hosts = raise_lab(options, say)
        except BaseException:
            remove()
            raise
        say(f"lab is up after {time.monotonic() - started:.1f} s")
        return hosts


def raise_lab(options, say):
    """Network, boxes, host addresses, in this order."""
    plan.RUN_DIR.mkdir(parents=True, exist_ok=True)
    state = {"root": str(plan.ROOT), "options": asdict(options), "hosts": {}, "hugepages": reserved_hugepages()}
    STATE.write_text(json.dumps(state))
    net.create(options.core_mtu, options.services, options.ha)
    shown = plan.NODES + (plan.SERVICE_NODES if options.services else ()) + (plan.HA_NODES if options.ha else ())
    say(f"network: {len(shown)} nodes")
    if options.services:
        services.start(say)
    if options.ha:
        stores.start(say)
        routing.start(say)
    if options.boxes:
        hosts = box.configure(options)
    else:
        hosts = {node: {"name": node, "ulid": plain_address(node), "locators": []} for node in host_nodes()}
    state["hosts"] = hosts
    STATE.write_text(json.dumps(state, indent=1))
    for node, host in hosts.items():
        lines = f"addr add {host['ulid']}/64 dev eth0 nodad\nroute add default via fe80::1 dev eth0\n"
        net.exec_in(node, ["ip", "-6", "-batch", "-"], input=lines)
    if options.boxes:
        for site in box.every():
            box.start(site)
        for site in box.every():
            box.wait_ready(site)
            say(f"{site.box}: ready")
        if options.ha:
            routing.wait_converged()
            box.wait_fit()
        check_hosts()
    return hosts


def check_hosts():
    """Every host reaches its own box: neighbour discovery and echo work on every LAN."""
    for site in plan.SITES.values():
        for node in site.host_nodes:
            done = net.exec_in(node, ["ping", "-6", "-c", "1", "-W", "3", site.box_address], check=False)
            if done.returncode != 0:
                raise LabError(f"{node} does not reach its box at {site.box_address}:\n{box.log_tail(site)}")


def down(say=print):
    """Removes everything a lab made, also after a crash or a half-finished `up`."""
    need_root()
    with locked():
        check_owner()
        there = is_there()
        remove()
        say("lab is down" if there else "there was no lab")


def power_off(site):
    """A box's machine is gone at once, with its ports and all that ran on it."""
    for link in net.box_links(site):
        net.exec_in(site.box, ["ip", "link", "del", link.port], check=False)
    net.end_processes([site.box], 0)
    box.bury_children()
    routing.forget(site.box)


def power_on(site, wait=True):
    """The machine is back, as it was when it was started first."""
    for link in net.box_links(site):
        net.run(["ip", "-batch", "-"], input=link.line())
        net.adopt_port(link.other, link.other_port)
    net.configure_node(site.box)
    routing.launch(site.box)
    box.start(site)
    return box.wait_ready(site) if wait else None


def remove():
    capture.stop_all()
    for site in box.every():
        box.kill(site)
    net.destroy()
    services.bury()
    stores.bury()
    routing.bury()
    give_back_hugepages()
    shutil.rmtree(plan.RUN_DIR, ignore_errors=True)


def reserved_hugepages():
    """Pages of 2 MB the kernel keeps for whoever asks; 0 where it knows none."""
    try:
        return int(HUGEPAGES.read_text())
    except (OSError, ValueError):
        return 0


def give_back_hugepages():
    """What the daemons had the kernel reserve stays reserved when they end; puts back what was before `up`."""
    try:
        before = state()["hugepages"]
    except (LabError, KeyError, ValueError):
        return
    if reserved_hugepages() > before:
        try:
            # Pages that others use meanwhile are left to them.
            HUGEPAGES.write_text(f"{before}\n")
        except OSError as error:
            raise LabError(f"could not give back hugepages: {error}") from None


def is_there():
    return plan.RUN_DIR.exists() or bool(net.existing_namespaces())


def state():
    """What `up` wrote down: its options and the hosts' identities."""
    try:
        return json.loads(STATE.read_text())
    except FileNotFoundError:
        raise LabError("no lab is up: start one with `scripts/lab up`") from None


def hosts():
    """Node -> {"name", "ulid", "locators", …}."""
    return state()["hosts"]


def host_nodes():
    return [node for site in plan.SITES.values() for node in site.host_nodes]


def plain_address(node):
    """A LAN address for a host of a lab without boxes, where nobody makes identifiers."""
    site = plan.SITES[node[0]]
    return f"{site.block}0:1::{10 + int(node[-1])}"


def build(say=print):
    """Builds the two programs as the owner of the tree would, showing cargo's own progress."""
    say("building pshim6d and pshim6ctl (release)")
    script = plan.ROOT / "scripts" / "cargo"
    done = subprocess.run([script, "build", "--release", "-p", "control", "--features", "dpdk"], cwd=plan.ROOT)
    if done.returncode != 0:
        raise LabError("the build failed")


def overview():
    """What is there now, for `list`."""
    there = set(net.existing_namespaces())
    options = state()["options"] if STATE.exists() else None
    return {
        "up": STATE.exists(),
        "options": options,
        "nodes": {node: node in there for node in plan.NODES + (plan.HA_NODES if net.is_ha() else ())},
        "boxes": {site.box: box.pid(site) for site in box.every()},
        "hosts": {node: host["ulid"] for node, host in (hosts() if STATE.exists() else {}).items()},
        "cuts": net.cuts() if there else {},
        "run_dir": str(Path(plan.RUN_DIR)),
    }
