"""The two `pshim6d` boxes of the lab: their configuration, their processes and what they say about themselves."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import certificates, net, plan, services, stores
from .net import LabError

READY_TIMEOUT_S = 20.0
SYNC_PORT = 4700
CHILDREN = {}  # Daemons this process started, by process id: only it can wait for their end.
TAPES = []  # What daemons were told, if `PSHIM6_RECORD` is a folder for recordings that are not decided the same again.


def binary(name):
    """Where the release build puts a program; `PSHIM6_BIN` names another folder."""
    folder = os.environ.get("PSHIM6_BIN", plan.ROOT / "target" / "release")
    return os.path.join(folder, name)


def site_named(name):
    """A site's box by what a user calls it: `a` or `a-box`, and `a2` or `a-box2` for the second."""
    known = {short: each for each in every() for short in (each.box, f"{each.name}{each.suffix}")}
    try:
        return known[name]
    except KeyError:
        raise LabError(f"no box `{name}`: there are {', '.join(known)}") from None


def every():
    """All boxes of the lab that is up."""
    return [each for site in plan.SITES.values() for each in (site.boxes if net.is_ha() else (site,))]


# --- configuration ---------------------------------------------------------------------------------------------


def config_text(site, options, peers=()):
    """The box's TOML. `peers` are what the other site's `host add` printed."""
    queues = f",qpairs={options.workers}" if options.workers > 1 else ""

    def port(index, name, iface, addresses, kernel_addresses=(), extra=""):
        listed = ", ".join(f'"{address}"' for address in addresses)
        device = f"net_af_packet{index},iface={iface},qdisc_bypass=1{queues}"
        kernel = f'interface = "{plan.kernel_port(iface)}"\n' if options.ha else ""
        if options.ha and kernel_addresses:
            kernel += f"interface_addresses = {json.dumps(kernel_addresses)}\n"
        return f'[[port]]\nname = "{name}"\ndevice = "{device}"\naddresses = [{listed}]\n{kernel}{extra}'

    # With a second box its hosts have a router of their own, which finds the box that serves.
    inside = [f"{site.inner_address}/64", f"fe80::b{site.number}/64"] if options.ha else [f"{site.box_address}/64", "fe80::1/64"]
    parts = [
        f"""# Made by scripts/lab for one run.
[box]
name = "{site.box}"
id = {site.box_id}
workers = {options.workers}
idle = "sleep"
control_socket = "{site.control_socket}"
hosts_file = "hosts.json"
log = "{options.log}"

[eal]
memory_mb = 128
hugepages = "auto"

[site]
{'key = "key.pem"' if options.services or options.ha else "# no key: addresses are HBA-only"}
prefix = "{site.cmula}"
lan = "{site.lan}"
port = "lan"
""",
        port(0, "lan", "lan0", inside, extra="mtu = 1500\n"),
    ]
    wired = site.providers + (site.spares if options.services else ())
    for index, provider in enumerate(wired, start=1):
        kernel = [f"{provider.link_kernel(site.number)}/64"]
        parts.append(port(index, provider.name, provider.port, [f"{provider.link_of(site.number)}/64"], kernel))
    for provider in site.providers:
        parts.append(
            f'[[provider]]\nname = "{provider.name}"\nport = "{provider.name}"\n'
            f'prefix = "{provider.locators}"\nnext_hop = "{provider.link_isp}"\n'
        )
    for peer in peers:
        locators = ", ".join(f'"{locator}"' for locator in peer["locators"])
        parts.append(f'[[peer]]\nname = "{peer["name"]}"\nulid = "{peer["ulid"]}"\nlocators = [{locators}]\n')
    if options.services:
        parts.append(
            f'[publish]\nservers = ["{plan.DNS_AUTHORITY}"]\nzone = "{site.zone}"\nkey = "{services.key_file(site)}"\nttl_s = 5\n'
        )
    if options.ha:
        parts.append(f'[routes]\nenabled = true\nrole = "{"primary" if site.number == 1 or options.active else "backup"}"\n')
    if options.ha:
        parts.append(store_text(site))
    if options.sync:
        parts.append(sync_text(site))
    parts.append(f"[reap]\nsend_timeout_s = {options.send_timeout}\n{options.extra}")
    return "\n".join(parts)


def store_text(site):
    """The section by which the boxes of a site share their hosts and their policy."""
    files = {"ca": "ca.pem", "certificate": f"{stores.user(site)}.pem", "key": f"{stores.user(site)}.key"}
    lines = "".join(f'{name} = "{stores.DIRECTORY / file}"\n' for name, file in files.items())
    return f"""[store]
file = "store.redb"
etcd = {json.dumps(stores.endpoints())}
prefix = "{stores.prefix(site)}"
user = "{stores.user(site)}"
password_file = "{stores.password_file(site)}"
share = ["hosts", "policy"]
{lines}"""


def sync_text(site):
    """The section by which the boxes of a site tell each other their contexts; what it names is made first."""
    folder = plan.RUN_DIR / f"sync-{site.name}"
    if not folder.exists():
        certificates.authority(folder)
        for each in site.boxes:
            certificates.issue(folder, each.box, [each.management()])
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_text(secrets.token_hex(32))
    listen = [f"[{each.management()}]:{SYNC_PORT}" for each in site.boxes]
    return f"""[sync]
listen = "{listen[site.number - 1]}"
peers = ["{listen[2 - site.number]}"]
certificate = "{folder}/{site.box}.pem"
key = "{folder}/{site.box}.key"
ca = "{folder}/ca.pem"
secret = "{folder}/secret"
"""


def configure(options):
    """Makes the hosts' identities and all configurations. Returns node -> what `host add` printed."""
    hosts = {}
    for site in plan.SITES.values():
        write(site, config_text(site, options))
        make_key = ["--make-key"] if options.services or options.ha else []
        for node in site.host_nodes:
            done = net.run([binary("pshim6ctl"), "--config", str(site.config), "host", "add", node, "--json", *make_key])
            hosts[node] = json.loads(done.stdout)
    for site in every():
        peers = [hosts[node] for other in plan.SITES.values() if other.name != site.name for node in other.host_nodes]
        write(site, config_text(site, options, peers))
        if site.number > 1:
            for name in ("hosts.json", "key.pem"):
                shutil.copy2(plan.SITES[site.name].run_dir / name, site.run_dir / name)
        net.run([binary("pshim6ctl"), "--config", str(site.config), "check"])
    return hosts


def write(site, text):
    site.run_dir.mkdir(parents=True, exist_ok=True)
    site.config.write_text(text)


# --- processes -------------------------------------------------------------------------------------------------


def start(site, *arguments):
    """Starts the site's daemon in its namespace and remembers its process id."""
    process = spawn(site, *arguments)
    (site.run_dir / "pshim6d.pid").write_text(f"{process.pid}\n")


def start_successor(site):
    """Starts a process that takes the daemon's place."""
    return spawn(site, "--take-over")


def succeed(site, timeout_s=READY_TIMEOUT_S):
    """Has a new process take the daemon's place, which must end in peace."""
    before = pid(site)
    old = CHILDREN.get(before)
    new = start_successor(site)
    deadline = time.monotonic() + timeout_s
    while pid(site) == before:
        if time.monotonic() > deadline:
            raise LabError(f"{site.box}: the old process does not give way:\n{log_tail(site)}")
        time.sleep(0.01)
    # Of a process that somebody else started the exit status is not known.
    status = old.wait() if old else 0
    if status != 0 or new.poll() is not None:
        raise LabError(f"{site.box}: the old process ended with {status}, the new one with {new.poll()}:\n{log_tail(site)}")
    (site.run_dir / "pshim6d.pid").write_text(f"{new.pid}\n")
    return wait_ready(site)


def adopt(site, number):
    """A process of somebody else's is the site's daemon from now on."""
    bury_children()
    (site.run_dir / "pshim6d.pid").write_text(f"{number}\n")


def succession_gap_ms(site):
    """For how long nobody had the devices the last time, by the daemons' log: between the old workers' last turn and the
    new process's report that it took over. The clock is the machine's."""
    text = (site.run_dir / "pshim6d.log").read_text(errors="replace")
    gave = re.findall(r"gave way took=([0-9.]+)(ns|µs|ms|s)", text)[-1]
    took = re.findall(r"took over .*known=([0-9.]+)(ns|µs|ms|s) opened=([0-9.]+)(ns|µs|ms|s)", text)[-1]
    unit = {"ns": 1e-6, "µs": 1e-3, "ms": 1.0, "s": 1e3}
    opening = float(took[2]) * unit[took[3]] - float(took[0]) * unit[took[1]]
    return float(gave[0]) * unit[gave[1]] + opening


def answers(site):
    """Whether the daemon answers questions."""
    return ctl_process(site, ["status", "--json"]).returncode == 0


def spawn(site, *arguments):
    if os.environ.get("PSHIM6_RECORD") and "--record" not in arguments:
        TAPES.append(site.run_dir / f"tape-{len(TAPES)}")
        arguments = (*arguments, "--record", str(TAPES[-1]))
    with open(site.run_dir / "pshim6d.log", "ab") as log:
        process = subprocess.Popen(
            net.inside(site.box, [binary("pshim6d"), "--config", str(site.config), *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Where DPDK makes a folder while it starts: a daemon killed just then must not leave it behind.
            env={**os.environ, "RUNTIME_DIRECTORY": str(plan.RUN_DIR)},
        )
    CHILDREN[process.pid] = process
    return process


def replay_tapes():
    """Decides again what recorded daemons of this lab decided; returns what is not as it was."""
    wrong, inputs = [], 0
    for tape in TAPES:
        # A box that publishes is not recorded.
        if tape.exists():
            done = subprocess.run([binary("pshim6ctl"), "replay", str(tape), "--effects", "lose"], text=True, capture_output=True)
            inputs += int((re.findall(r"^(\d+) inputs", done.stdout, re.M) or [0])[-1])
            if done.returncode != 0:
                wrong.append(f"{tape.parent.name}/{tape.name}: {done.stdout[-2000:]}{done.stderr}")
                shutil.copy2(tape, Path(os.environ["PSHIM6_RECORD"]) / f"{tape.parent.name}-{tape.name}")
    if TAPES:
        print(f"    {inputs} inputs of {len(TAPES)} daemons decided again", flush=True)
    TAPES.clear()
    return wrong


def pid(site):
    """The daemon's process id, or None when it does not run."""
    try:
        number = int((site.run_dir / "pshim6d.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    try:
        # A dead child that nobody has waited for still has an entry, in state Z.
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
        command = Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return None
    # While nsenter becomes pshim6d there is a moment without a command line.
    return number if state not in "ZX" and (not command or b"pshim6d" in command) else None


def wait_ready(site, timeout_s=READY_TIMEOUT_S):
    """Waits until the daemon says it is ready; fails at once when it has died."""
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < deadline:
        done = ctl_process(site, ["status", "--json"])
        if done.returncode == 0:
            try:
                status = json.loads(done.stdout)
            except json.JSONDecodeError:
                raise LabError(f"{site.box}: `status --json` is not JSON: {done.stdout!r}") from None
            if status.get("ready") is True or status.get("state") == "ready":
                return status
            last = done.stdout.strip()
        else:
            last = done.stderr.strip() or last
        if pid(site) is None:
            raise LabError(f"{site.box}: pshim6d ended while starting:\n{log_tail(site)}")
        time.sleep(0.05)
    raise LabError(f"{site.box}: not ready after {timeout_s:.0f} s ({last}):\n{log_tail(site)}")


def kill(site, number=signal.SIGKILL, timeout_s=5.0):
    """Ends the daemon, by default as a crash would. Returns whether there was one."""
    daemon = pid(site)
    if daemon is None:
        bury_children()
        return False
    os.kill(daemon, number)
    deadline = time.monotonic() + timeout_s
    while pid(site) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"{site.box}: pshim6d ({daemon}) does not end")
        time.sleep(0.01)
    bury_children()
    (site.run_dir / "pshim6d.pid").unlink(missing_ok=True)
    return True


def bury_children():
    """Waits for daemons of ours that have ended, by whatever hand."""
    for number, child in list(CHILDREN.items()):
        if child.poll() is not None:
            del CHILDREN[number]


def restart(site):
    """Kills the daemon if it still runs and starts it again with the same configuration."""
    kill(site)
    start(site)
    return wait_ready(site)


def log_tail(site, lines=15):
    """The last lines of the daemon's log."""
    try:
        text = (site.run_dir / "pshim6d.log").read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


# --- asking ----------------------------------------------------------------------------------------------------


def ctl_command(site, arguments):
    return [binary("pshim6ctl"), "--config", str(site.config), *arguments]


def ctl_process(site, arguments):
    """Runs pshim6ctl and returns the completed process, whatever its exit status."""
    return subprocess.run(ctl_command(site, arguments), text=True, capture_output=True, timeout=30)


def ctl_json(site, *arguments):
    """Runs pshim6ctl with `--json` and returns what it said."""
    done = ctl_process(site, [*arguments, "--json"])
    if done.returncode != 0:
        raise LabError(f"{site.box}: pshim6ctl {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def wait_fit(timeout_s=30.0):
    """Waits until every box that runs could serve: one that begins does not know its hosts' router before the routing daemon does,
    and is announced inside some seconds after that."""
    deadline = time.monotonic() + timeout_s
    for each in every():
        while pid(each) and not serves((system := ctl_json(each, "status")["system"])):
            if time.monotonic() > deadline:
                raise LabError(f"{each.box} does not serve after {timeout_s:.0f} s: {system}")
            time.sleep(0.1)


def serves(system):
    """Whether a box that says this of itself is fit, and announced inside too if it shares its ports."""
    inside = [route for route in system["routes"] if route["prefix"] == plan.IDENTIFIERS]
    return not system["unfit"] and (inside or not system["interfaces"])


def contexts(site):
    """The box's contexts, with the peer's locators as plain addresses whatever else is told of them."""
    found = ctl_json(site, "contexts")
    found = found["contexts"] if isinstance(found, dict) else found
    for context in found:
        context["peer_locators"] = [
            entry["locator"] if isinstance(entry, dict) else entry for entry in context["peer_locators"]
        ]
    return found


def counters(site):
    """The box's counters: name -> number, summed over its workers."""
    found = ctl_json(site, "counters")
    return found.get("counters", found)
