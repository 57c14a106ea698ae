"""Makes the plan real with iproute2, nftables and ethtool, and takes it away again.

Every function works on namespaces of this lab alone. Offloads are off on every link end: a frame must look on
the veth as it would on a wire, complete checksum and no larger than the MTU.
"""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import plan


class LabError(Exception):
    """Something the user has to know about; shown without a traceback."""


def run(command, check=True, input=None, timeout=None):
    """Runs a command and returns the completed process with its output as text."""
    try:
        done = subprocess.run(command, input=input, text=True, capture_output=True, timeout=timeout)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not there: build, or run scripts/install-deps") from None
    if check and done.returncode != 0:
        shown = " ".join(str(word) for word in command)
        raise LabError(f"`{shown}` failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done


def inside(node, command):
    """The command line that runs `command` in `node`'s network namespace."""
    return ["nsenter", f"--net=/run/netns/{plan.namespace(node)}", "--", *command]


def exec_in(node, command, **options):
    """Runs a command in a node and returns the completed process."""
    return run(inside(node, command), **options)


def existing_namespaces():
    """Namespaces of this lab that are there now, as node names."""
    try:
        names = os.listdir("/run/netns")
    except FileNotFoundError:
        return []
    known = {plan.namespace(node): node for node in plan.NODES + plan.SERVICE_NODES + plan.HELPERS}
    return [known[name] for name in sorted(names) if name in known]


def providers_there():
    """The providers of this lab, the spare ones of a lab with services among them: name -> provider."""
    there = existing_namespaces()
    return {name: it for name, it in {**plan.PROVIDERS, **plan.SPARES}.items() if it.node in there or name in plan.PROVIDERS}


def create(core_mtu=1500, services=False):
    """Creates namespaces, links, addresses, routes and filters."""
    nodes = plan.NODES + plan.HELPERS + (plan.SERVICE_NODES if services else ())
    run(["ip", "-batch", "-"], input="".join(f"netns add {plan.namespace(node)}\n" for node in nodes))
    # Defaults first: an interface takes them over when it appears in the namespace.
    for_each(nodes, set_defaults)
    run(["ip", "-batch", "-"], input="".join(link_lines(core_mtu, services)))
    for_each(nodes, configure_node)


def destroy(grace_s=1.5):
    """Ends what runs in the namespaces and removes them. Fine with a lab that is half there or not at all."""
    nodes = existing_namespaces()
    end_processes(nodes, grace_s)
    for node in nodes:
        run(["ip", "netns", "del", plan.namespace(node)], check=False)
    left = existing_namespaces()
    if left:
        raise LabError(f"could not remove the namespaces of {', '.join(left)}")


def for_each(nodes, task):
    """Runs `task(node)` for all nodes, a few at a time, and raises what the first failing one raised."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(task, nodes))


def pids_in(node):
    """Processes whose network namespace is this node's, our own process excepted."""
    done = run(["ip", "netns", "pids", plan.namespace(node)], check=False)
    return [int(word) for word in done.stdout.split() if int(word) != os.getpid()]


def end_processes(nodes, grace_s):
    """SIGTERM, a little patience, SIGKILL, for everything in these nodes."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        pids = [pid for node in nodes for pid in pids_in(node)]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in pids):
            time.sleep(0.02)


# --- what one node needs ---------------------------------------------------------------------------------------


def set_defaults(node):
    """Sysctls that have to be there before the interfaces are."""
    settings = {"accept_dad": 0, "dad_transmits": 0, "accept_ra": 0, "router_solicitations": 0, "autoconf": 0}
    script = [f"echo {value} > /proc/sys/net/ipv6/conf/default/{key}" for key, value in settings.items()]
    if node in plan.HELPERS or node in [site.box for site in plan.SITES.values()]:
        # The box's ports and the switch belong to others: this kernel must not answer there.
        script += [f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6" for name in ("default", "all")]
    if node.startswith("isp-") or node == plan.CORE:
        script.append("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        # A lab asks for many errors in a short time and wants to see every one.
        script.append("echo 0 > /proc/sys/net/ipv6/icmp/ratelimit")
    script.append("ip link set lo up")
    exec_in(node, ["sh", "-ec", "\n".join(script)])


def link_lines(core_mtu, services):
    """`ip -batch` lines that make every veth pair straight in its two namespaces."""

    def link(node, port, other, other_port, mtu=1500):
        return (
            f"link add name {port} mtu {mtu} netns {plan.namespace(node)} "
            f"type veth peer name {other_port} mtu {mtu} netns {plan.namespace(other)}\n"
        )

    for site in plan.SITES.values():
        yield link(site.box, "lan0", site.switch, "box")
        for host, node in zip(site.hosts, site.host_nodes):
            yield link(node, "eth0", site.switch, host)
        for provider in site.providers + (site.spares if services else ()):
            yield link(site.box, provider.port, provider.node, "cust0")
            yield link(provider.node, "up0", plan.CORE, provider.port, core_mtu)
    yield link(plan.EXT, "eth0", plan.CORE, "ext0")
    if services:
        yield link(plan.DNS, "eth0", plan.CORE, "dns0")


def interfaces(node):
    """The ports of a node, in the plan's names."""
    services = plan.DNS in existing_namespaces()
    if node.startswith("isp-"):
        return ["cust0", "up0"]
    if node == plan.CORE:
        return [provider.port for provider in providers_there().values()] + ["ext0"] + ["dns0"] * services
    for site in plan.SITES.values():
        if node == site.box:
            return ["lan0"] + [it.port for it in site.providers + (site.spares if services else ())]
        if node == site.switch:
            return ["box", *site.hosts]
    return ["eth0"]


def configure_node(node):
    """Offloads, links up, addresses, routes and filters of one node."""
    ports = interfaces(node)
    lines = [f"link set {port} up" for port in ports]
    if node in plan.HELPERS:
        lines = ["link add name br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up"] + lines
        lines += [f"link set {port} master br0" for port in ports]
    elif node in [site.box for site in plan.SITES.values()]:
        lines += [f"link set {port} promisc on" for port in ports]
    lines += list(address_lines(node))
    quiet = " ; ".join(f"ethtool -K {port} rx off tx off sg off tso off gso off gro off >/dev/null 2>&1" for port in ports)
    # One shell per node keeps `up` quick; ethtool may refuse a feature that is fixed, which the check below sees.
    exec_in(node, ["sh", "-ec", f"({quiet}) || true\nip -6 -batch -"], input="\n".join(lines) + "\n")
    rules = filter_rules(node)
    if rules:
        exec_in(node, ["nft", "-f", "-"], input=rules)


def address_lines(node):
    """Addresses and routes; every address is usable at once (`nodad`)."""
    if node.startswith("isp-"):
        provider = provider_named(node)
        yield f"addr add {provider.link_isp}/64 dev cust0 nodad"
        yield f"addr add {provider.up_isp}/64 dev up0 nodad"
        yield f"route add {provider.prefix} via {provider.link_box} dev cust0"
        yield f"route add default via {provider.up_core} dev up0"
    elif node == plan.CORE:
        for provider in providers_there().values():
            yield f"addr add {provider.up_core}/64 dev {provider.port} nodad"
            yield f"route add {provider.prefix} via {provider.up_isp} dev {provider.port}"
        yield f"addr add {plan.EXT_CORE_ADDRESS}/64 dev ext0 nodad"
        if plan.DNS in existing_namespaces():
            yield f"addr add {plan.DNS_CORE_ADDRESS}/64 dev dns0 nodad"
    elif node == plan.EXT:
        yield f"addr add {plan.EXT_ADDRESS}/64 dev eth0 nodad"
        yield f"route add default via {plan.EXT_CORE_ADDRESS} dev eth0"
    elif node == plan.DNS:
        for address in (plan.DNS_AUTHORITY, plan.DNS_RESOLVER):
            yield f"addr add {address}/64 dev eth0 nodad"
        yield f"route add default via {plan.DNS_CORE_ADDRESS} dev eth0"


def filter_rules(node):
    """nftables rules: strict ingress filtering at the providers, a count of leaked identifiers in the core."""
    if node.startswith("isp-"):
        provider = provider_named(node)
        return f"""
table ip6 lab {{
    counter spoofed {{ }}
    counter cut_in {{ }}
    counter cut_out {{ }}
    chain ingress {{
        type filter hook prerouting priority raw; policy accept;
        iifname "cust0" ip6 saddr {{ fe80::/10, ::/128 }} accept
        iifname "cust0" ip6 saddr != {provider.prefix} counter name spoofed drop
    }}
    chain cuts {{
        type filter hook forward priority filter; policy accept;
    }}
}}
"""
    if node == plan.CORE:
        return """
table ip6 lab {
    counter identifiers { }
    chain leaks {
        type filter hook prerouting priority raw; policy accept;
        ip6 saddr fc00::/7 counter name identifiers drop
        ip6 daddr fc00::/7 counter name identifiers drop
    }
}
"""
    return None


# --- cutting, healing, counting --------------------------------------------------------------------------------

DIRECTIONS = ("in", "out", "both")


def cut(name, direction="both", link=False, shim6=False):
    """Black-holes what a provider forwards, or of that only what has next header 140 (`shim6`). `in` is towards the site, `out`
    from it; no carrier is lost."""
    provider = provider_named(name)
    if direction not in DIRECTIONS:
        raise LabError(f"direction is one of {', '.join(DIRECTIONS)}, not {direction}")
    rules, what = [], "ip6 nexthdr 140 " if shim6 else ""
    if direction in ("in", "both"):
        rules.append(f'add rule ip6 lab cuts oifname "cust0" {what}counter name cut_in drop')
    if direction in ("out", "both"):
        rules.append(f'add rule ip6 lab cuts iifname "cust0" {what}counter name cut_out drop')
    text = "flush chain ip6 lab cuts\n" + "\n".join(rules) + "\n"
    exec_in(provider.node, ["nft", "-f", "-"], input=text)
    if link:
        exec_in(provider.node, ["ip", "link", "set", "cust0", "down"])


def zero_labels(name):
    """Has a provider write over the flow label of what it forwards, both ways, until it is healed."""
    exec_in(provider_named(name).node, ["nft", "add", "rule", "ip6", "lab", "cuts", "ip6", "flowlabel", "set", "0"])


def carried(name):
    """Octets that came to a provider from its customer so far, Ethernet headers included."""
    done = exec_in(provider_named(name).node, ["ip", "-j", "-s", "link", "show", "cust0"])
    return json.loads(done.stdout)[0]["stats64"]["rx"]["bytes"]


def heal(name):
    """Undoes every kind of cut of this provider."""
    provider = provider_named(name)
    exec_in(provider.node, ["nft", "flush", "chain", "ip6", "lab", "cuts"])
    exec_in(provider.node, ["ip", "link", "set", "cust0", "up"])
    # Taking a link down loses its addresses and routes, so put back what is missing.
    for line in address_lines(provider.node):
        words = line.split()
        words[1] = "replace"
        exec_in(provider.node, ["ip", "-6", *words])


def cuts():
    """Which providers are cut now: name -> in, out or both."""
    found = {}
    for name, provider in providers_there().items():
        done = exec_in(provider.node, ["nft", "list", "chain", "ip6", "lab", "cuts"], check=False)
        inward, outward = "cut_in" in done.stdout, "cut_out" in done.stdout
        if inward or outward:
            found[name] = "both" if inward and outward else ("in" if inward else "out")
    return found


def drops():
    """Packets dropped by the filters: per provider `spoofed`, `cut_in`, `cut_out`; for the core `identifiers`."""
    result = {}
    for key, node in [(name, it.node) for name, it in providers_there().items()] + [("core", plan.CORE)]:
        done = exec_in(node, ["nft", "-j", "list", "counters", "table", "ip6", "lab"])
        counters = [item["counter"] for item in json.loads(done.stdout)["nftables"] if "counter" in item]
        result[key] = {counter["name"]: counter["packets"] for counter in counters}
    return result


def provider_named(name):
    there = {**plan.PROVIDERS, **plan.SPARES}
    try:
        return there[name.removeprefix("isp-")]
    except KeyError:
        raise LabError(f"no provider `{name}`: there are {', '.join(there)}") from None
