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
from dataclasses import dataclass

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
    known = {plan.namespace(node): node for node in plan.every_node()}
    return [known[name] for name in sorted(names) if name in known]


def providers_there():
    """The providers of this lab, the spare ones of a lab with services among them: name -> provider."""
    there = existing_namespaces()
    return {name: it for name, it in {**plan.PROVIDERS, **plan.SPARES}.items() if it.node in there or name in plan.PROVIDERS}


def nodes(services=False, ha=False):
    """The nodes of a lab of this kind, the helpers among them."""
    more = (plan.SERVICE_NODES if services else ()) + (plan.HA_NODES + plan.HA_HELPERS if ha else ())
    return plan.NODES + plan.HELPERS + more


def create(core_mtu=1500, services=False, ha=False):
    """Creates namespaces, links, addresses, routes and filters."""
    every = nodes(services, ha)
    run(["ip", "-batch", "-"], input="".join(f"netns add {plan.namespace(node)}\n" for node in every))
    # Defaults first: an interface takes them over when it appears in the namespace.
    for_each(every, set_defaults)
    run(["ip", "-batch", "-"], input="".join(link.line() for link in links(core_mtu, services, ha)))
    for_each(every, configure_node)


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
    if node in plan.HELPERS + plan.HA_HELPERS or node in plan.box_nodes() and not is_ha():
        # The box's ports and the switch belong to others: this kernel must not answer there.
        script += [f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6" for name in ("default", "all")]
    if node.startswith("isp-") or node == plan.CORE or node in plan.HA_ROUTERS:
        script.append("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        # A lab asks for many errors in a short time and wants to see every one.
        script.append("echo 0 > /proc/sys/net/ipv6/icmp/ratelimit")
        # Over routes of equal cost: by addresses, what is carried, flow label and ports (RFC 6438), without which all that two
        # hosts send each other would look like one flow where ports cannot be seen.
        script.append("echo 63 > /proc/sys/net/ipv6/fib_multipath_hash_fields")
        script.append("echo 3 > /proc/sys/net/ipv6/fib_multipath_hash_policy")
    script.append("ip link set lo up")
    exec_in(node, ["sh", "-ec", "\n".join(script)])


@dataclass(frozen=True)
class Link:
    """A veth pair, straight in its two namespaces."""

    node: str
    port: str
    other: str
    other_port: str
    mtu: int = 1500
    mac: str = ""  # of the first end; the kernel's choice if none is given

    def line(self):
        """For `ip -batch`."""
        address = f"address {self.mac} " if self.mac else ""
        return (
            f"link add name {self.port} mtu {self.mtu} {address}netns {plan.namespace(self.node)} "
            f"type veth peer name {self.other_port} mtu {self.mtu} netns {plan.namespace(self.other)}\n"
        )


def links(core_mtu=1500, services=False, ha=False):
    """Every link of a lab of this kind."""
    for site in plan.SITES.values():
        for host, node in zip(site.hosts, site.host_nodes):
            yield Link(node, "eth0", site.switch, host)
        if ha:
            yield Link(site.router, "lan0", site.switch, "rtr")
            yield Link(site.router, "in0", site.inner, "rtr")
            for each in site.boxes:
                yield from box_links(each)
        else:
            yield Link(site.box, "lan0", site.switch, "box")
        for provider in site.providers + (site.spares if services else ()):
            if ha and provider in site.providers:
                yield Link(provider.node, "cust0", provider.switch, "isp")
            else:
                yield Link(site.box, provider.port, provider.node, "cust0")
            yield Link(provider.node, "up0", plan.CORE, provider.port, core_mtu)
    yield Link(plan.EXT, "eth0", plan.CORE, "ext0")
    if services:
        yield Link(plan.DNS, "eth0", plan.CORE, "dns0")
    if ha:
        for node in plan.STORES:
            yield Link(node, "eth0", plan.MGMT_SWITCH, node)


def box_links(site):
    """The links of one of a site's two boxes. A machine that comes back has the cards it had."""
    ends = [("lan0", site.inner, f"box{site.number}"), ("mgmt0", plan.MGMT_SWITCH, f"{site.name}{site.number}")]
    ends += [(provider.port, provider.switch, f"box{site.number}") for provider in site.providers]
    for at, (port, switch, switch_port) in enumerate(ends):
        yield Link(site.box, port, switch, switch_port, mac=f"02:00:00:{ord(site.name):02x}:{site.number:02x}:{at:02x}")


def is_ha():
    """Whether the lab has two boxes for each site."""
    return plan.HA_BOXES[0] in existing_namespaces()


def interfaces(node):
    """The ports of a node, in the plan's names."""
    there = existing_namespaces()
    found = []
    for link in links(services=plan.DNS in there, ha=plan.HA_BOXES[0] in there):
        found += [port for end, port in ((link.node, link.port), (link.other, link.other_port)) if end == node]
    return found


def configure_node(node):
    """Offloads, links up, addresses, routes and filters of one node."""
    ports = interfaces(node)
    lines = [f"link set {port} up" for port in ports]
    if node in plan.HELPERS + plan.HA_HELPERS:
        lines = ["link add name br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up"] + lines
        lines += [f"link set {port} master br0" for port in ports]
    elif node in plan.box_nodes():
        lines += [f"link set {port} promisc on" for port in ports]
    lines += list(address_lines(node))
    quiet = " ; ".join(f"ethtool -K {port} rx off tx off sg off tso off gso off gro off >/dev/null 2>&1" for port in ports)
    if node in plan.box_nodes():
        # In a lab with one box for each site this kernel has no IPv6 at all; with two it has it beside the ports.
        quiet += "".join(f" ; echo 1 > /proc/sys/net/ipv6/conf/{port}/disable_ipv6" for port in ports if port != "mgmt0")
    # One shell per node keeps `up` quick; ethtool may refuse a feature that is fixed, which the check below sees.
    exec_in(node, ["sh", "-ec", f"({quiet}) || true\nip -6 -batch -"], input="\n".join(lines) + "\n")
    rules = filter_rules(node)
    if rules:
        exec_in(node, ["nft", "-f", "-"], input=rules)


def adopt_port(switch, port):
    """A switch's new port carries frames as the others do."""
    exec_in(switch, ["ip", "-batch", "-"], input=f"link set {port} up\nlink set {port} master br0\n")


def address_lines(node):
    """Addresses and routes; every address is usable at once (`nodad`)."""
    if node.startswith("isp-"):
        provider = provider_named(node)
        yield f"addr add {provider.link_isp}/64 dev cust0 nodad"
        yield f"addr add {provider.up_isp}/64 dev up0 nodad"
        if not is_ha():
            # With two boxes the one that serves is learnt from their routing daemons.
            yield f"route add {provider.prefix} via {provider.link_box} dev cust0"
        yield f"route add default via {provider.up_core} dev up0"
    elif node == plan.CORE:
        for provider in providers_there().values():
            yield f"addr add {provider.up_core}/64 dev {provider.port} nodad"
            yield f"route add {provider.prefix} via {provider.up_isp} dev {provider.port}"
        yield f"addr add {plan.EXT_CORE_ADDRESS}/64 dev ext0 nodad"
        if plan.DNS in existing_namespaces():
            yield f"addr add {plan.DNS_CORE_ADDRESS}/64 dev dns0 nodad"
    elif node in plan.HA_ROUTERS:
        site = next(site for site in plan.SITES.values() if site.router == node)
        yield f"addr add {site.box_address}/64 dev lan0 nodad"
        yield "addr add fe80::1/64 dev lan0 nodad"
    elif node in plan.box_nodes() and is_ha():
        site = next(each for site in plan.SITES.values() for each in site.boxes if each.box == node)
        yield f"addr add {site.management()}/48 dev mgmt0 nodad"
    elif node in plan.STORES:
        yield f"addr add {plan.store_address(node)}/48 dev eth0 nodad"
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
