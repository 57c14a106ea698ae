"""The routing daemons of a lab with two boxes for each site: FRR at the hosts' routers and at the providers, and beside the boxes
FRR (site a) or BIRD (site b).

Inside a site they speak OSPFv3, towards providers BGP, and BFD (a tenth of a second, three times) with both. What a box's kernel
has on the box's own interfaces is redistributed, with the metric of the box's role, and nothing else is. Where both boxes are
active these metrics are alike, and the hosts' router and the providers send to both.
"""

import ipaddress
import json
import shutil
import socket
import subprocess
import time

from . import net, plan
from .net import LabError

DIRECTORY = plan.RUN_DIR / "frr"
PROGRAMS = "/usr/lib/frr"
WITH_BIRD = ("b",)
START_TIMEOUT_S = 10.0
CHILDREN = {}  # Node -> its daemons, if this process started them.

FAST = """bfd
 profile fast
  receive-interval 100
  transmit-interval 100
 exit
exit
"""


def active():
    """Whether both boxes of each site serve."""
    return json.loads((plan.RUN_DIR / "state.json").read_text())["options"]["active"]


def metric(site):
    """Of the routes that a box's kernel has."""
    return 100 if active() else 100 * site.number


def nodes():
    return [*plan.box_nodes(), *plan.HA_ROUTERS, *(provider.node for provider in plan.PROVIDERS.values())]


def configuration(node):
    """What each daemon of a node is told: name -> text, those first whom the others need."""
    if node.startswith("isp-"):
        return {"zebra": "", "bfdd": FAST, "bgpd": provider_text(net.provider_named(node))}
    site = next(each for site in plan.SITES.values() for each in site.boxes if node in (each.box, each.router))
    if node != site.router and site.name in WITH_BIRD:
        return {"bird": bird_text(site)}
    if node == site.router:
        lan = "interface lan0\n ipv6 ospf6 area 0\n ipv6 ospf6 passive\nexit\n"
        return {"zebra": "", "bfdd": FAST, "ospf6d": ospf_text("in0", f"10.0.{site.box_id}.100", 255) + lan}
    return {"zebra": "", "bfdd": FAST, "ospf6d": inside_text(site), "bgpd": outside_text(site)}


def ospf_text(interface, router_id, priority, more=""):
    """The hosts' router is the link's designated router: it is there whichever box is.

    A box that comes back from a loss of power numbers its routes from the beginning, as OSPF does, and the other box may still hold
    their ends under the same numbers and tell them as news. The first one says at once that it is there; a router that takes
    nothing new within a second (RFC 2328, MinLSArrival), or is told again after five, leaves the hosts without a route meanwhile."""
    return f"""interface {interface}
 ipv6 ospf6 area 0
 ipv6 ospf6 priority {priority}
 ipv6 ospf6 hello-interval 1
 ipv6 ospf6 dead-interval 4
 ipv6 ospf6 bfd profile fast
exit
router ospf6
 ospf6 router-id {router_id}
 timers throttle spf 0 50 200
 timers lsa min-arrival 0
{more}exit
"""


def inside_text(site):
    """The role of a box is in the metric of its routes, which BGP hands on by itself and OSPFv3 does not."""
    routes = f"""ipv6 prefix-list identifiers permit fc00::/7 le 64
route-map inside permit 10
 match ipv6 address prefix-list identifiers
 set metric {metric(site)}
exit
"""
    return routes + ospf_text(plan.kernel_port("lan0"), f"10.0.{site.box_id}.1", 0, " redistribute kernel route-map inside\n")


def outside_text(site):
    lists = "".join(f"ipv6 prefix-list own-{it.name} permit {it.prefix} le 64\n" for it in site.providers)
    neighbours = [(it.link_isp, it.number_as, ("nothing", f"own-{it.name}")) for it in site.providers]
    nothing = "ipv6 prefix-list nothing deny any\n"
    return nothing + lists + bgp_text(site.number_as, f"10.0.{site.box_id}.1", neighbours, "  redistribute kernel\n")


def provider_text(provider):
    site = plan.SITES[provider.site]
    neighbours = [(provider.link_kernel(each.number), site.number_as, ("customer", None)) for each in site.boxes]
    wanted = f"ipv6 prefix-list customer permit {provider.prefix} le 64\n"
    return wanted + bgp_text(provider.number_as, f"10.1.{provider.index}.1", neighbours, "  maximum-paths 2\n")


def bgp_text(own, router_id, neighbours, more=""):
    """For neighbours as (address, AS, (prefix list in, and out))."""
    lines, activated = "", ""
    for address, other, (inward, outward) in neighbours:
        lines += f" neighbor {address} remote-as {other}\n"
        for words in ("bfd profile fast", "advertisement-interval 0", "timers 3 9", "timers connect 1"):
            lines += f" neighbor {address} {words}\n"
        activated += f"  neighbor {address} activate\n  neighbor {address} prefix-list {inward} in\n"
        activated += f"  neighbor {address} prefix-list {outward} out\n" if outward else ""
    return f"""router bgp {own}
 bgp router-id {router_id}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
{lines} address-family ipv6 unicast
{more}{activated} exit-address-family
exit
"""


def bird_text(site):
    """All of it in one: BIRD has what FRR has in four daemons. From the other routers it takes the hosts alone: what the other
    box announces would win against the kernel's own route, and never be announced."""
    protocols = "".join(
        f"""protocol bgp {it.name} {{
    local as {site.number_as};
    neighbor {it.link_isp} as {it.number_as};
    hold time 9; keepalive time 3; connect retry time 1; connect delay time 1; error wait time 1, 2;
    bfd yes;
    ipv6 {{
        import none;
        next hop self;
        export filter {{
            if proto = "boxes" && net ~ [ {it.prefix}{{48,64}} ] then {{ bgp_med = krt_metric; accept; }}
            reject;
        }};
    }};
}}
"""
        for it in site.providers
    )
    inner = plan.kernel_port("lan0")
    return f"""router id 10.0.{site.box_id}.1;
protocol device {{ scan time 1; }}
protocol kernel boxes {{
    learn;
    scan time 5;
    ipv6 {{ import all; export filter {{ if net = {site.lan} then accept; reject; }}; }};
}}
protocol bfd {{ interface "*" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}
protocol ospf v3 inside {{
    ipv6 {{
        import filter {{ if net = {site.lan} then accept; reject; }};
        export filter {{
            if proto = "boxes" && net ~ [ {plan.IDENTIFIERS}{{7,64}} ] then {{ ospf_metric2 = krt_metric; accept; }}
            reject;
        }};
    }};
    area 0 {{ interface "{inner}" {{ type broadcast; hello 1; dead 4; priority 0; bfd yes; }}; }};
}}
{protocols}"""


# --- processes -------------------------------------------------------------------------------------------------


def start(say=print):
    for node in nodes():
        launch(node)
    say(f"FRR: {len(nodes())} routers")


def launch(node):
    """Starts a node's daemons, the ones others need first."""
    folder = DIRECTORY / node
    folder.mkdir(parents=True, exist_ok=True)
    for path in (DIRECTORY, folder):
        shutil.chown(path, "frr", "frr")
    CHILDREN[node] = []
    for name, text in configuration(node).items():
        file, log, socket_file = (folder / f"{name}.{end}" for end in ("conf", "log", "vty"))
        file.write_text(text if name == "bird" else f"hostname {node}\nlog file {log}\n{text}")
        shutil.chown(file, "frr", "frr")
        socket_file.unlink(missing_ok=True)
        words = bird_words(folder) if name == "bird" else frr_words(name, folder)
        with open(folder / f"{name}.out", "ab") as out:
            try:
                child = subprocess.Popen(
                    net.inside(node, words), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
                )
            except FileNotFoundError:
                raise LabError("FRR or BIRD is not there: run scripts/install-deps --services") from None
        CHILDREN[node].append(child)
        wait_for(socket_file, child, folder / f"{name}.out")


def bird_words(folder):
    return ["bird", "-f", "-c", str(folder / "bird.conf"), "-s", str(folder / "bird.vty"), "-P", str(folder / "bird.pid")]


def frr_words(name, folder):
    words = [f"{PROGRAMS}/{name}", "-f", str(folder / f"{name}.conf"), "-i", str(folder / f"{name}.pid")]
    words += ["-z", str(folder / "zserv"), "--vty_socket", str(folder), "-P", "0"]
    return [*words, "--bfdctl", str(folder / "bfdd.sock")] if name == "bfdd" else words


def wait_for(path, child, log):
    deadline = time.monotonic() + START_TIMEOUT_S
    while not path.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"{path.name} is not there: {log.read_text()[-1000:]}")
        time.sleep(0.02)


def bury():
    """Waits for daemons of ours that were ended."""
    while CHILDREN:
        for child in CHILDREN.popitem()[1]:
            child.wait(timeout=10)


def forget(node):
    """The same for one node."""
    for child in CHILDREN.pop(node, []):
        child.wait(timeout=10)


def ask(node, daemon, command):
    """What a daemon of a node answers to a command, over the socket that vtysh would use: vtysh itself wants PAM."""
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(5)
        vty.connect(str(DIRECTORY / node / f"{daemon}.vty"))
        answer(vty, "enable")
        return answer(vty, command)


def answer(vty, command):
    """One command and its answer, which ends with three zero octets and a status."""
    vty.sendall(command.encode() + b"\0")
    told = b""
    while len(told) < 4 or told[-4:-1] != b"\0\0\0":
        octets = vty.recv(65536)
        if not octets:
            raise LabError(f"{command}: the daemon is gone")
        told += octets
    if told[-1] != 0:
        raise LabError(f"{command}: {told[:-4].decode(errors='replace').strip() or told[-1]}")
    return told[:-4].decode(errors="replace")


def next_hops(node, prefix):
    """Where a node's kernel sends what is for a prefix: [(gateway or device, metric)]."""
    done = net.exec_in(node, ["ip", "-6", "-j", "route", "show", prefix])
    hops = [(hop, route.get("metric")) for route in json.loads(done.stdout) for hop in route.get("nexthops", [route])]
    return [(hop.get("gateway", hop.get("dev")), metric) for hop, metric in hops]


def serving(site):
    """Which of a site's boxes the hosts' router sends to, and which each provider does: 1, 2 or None."""
    return {place: min(numbers, default=None) for place, numbers in all_serving(site).items()}


def all_serving(site):
    """The same with all of them."""
    found = {"inside": numbers_of(next_hops(site.router, plan.IDENTIFIERS), site, "lan0")}
    for provider in site.providers:
        found[provider.name] = numbers_of(next_hops(provider.node, provider.locators), site, provider.port)
    return found


def numbers_of(hops, site, port):
    """The boxes whose link-local addresses, made from their ports' hardware addresses, a route names."""
    gateways = {gateway for gateway, _ in hops}
    return {each.number for each in site.boxes if link_local(each.box, port) in gateways}


def link_local(node, port):
    """The link-local address that a box's kernel has on the interface it shares this port by; none without the port. The box
    has the one that everybody makes of the hardware address (RFC 4291, appendix A), and the kernel's differs in one octet."""
    done = net.exec_in(node, ["ip", "-j", "link", "show", port], check=False)
    if done.returncode != 0:
        return None
    octets = bytearray.fromhex(json.loads(done.stdout)[0]["address"].replace(":", ""))
    octets[3:3] = b"\xff\xfd"
    octets[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(octets)))


def wait_converged(timeout_s=60.0):
    """Waits until everybody sends to the first box of each site, or to both."""
    for site in plan.SITES.values():
        if active():
            wait_all_serving(site, {1, 2}, timeout_s)
        else:
            wait_serving(site, 1, timeout_s)


def wait_all_serving(site, numbers, timeout_s=60.0):
    """Waits until the hosts' router and all providers of a site send to these of its boxes, and to no others."""
    deadline = time.monotonic() + timeout_s
    while list((found := all_serving(site)).values()) != [numbers] * len(found):
        if time.monotonic() > deadline:
            raise LabError(f"site {site.name} is not served by {numbers} after {timeout_s:.0f} s: {found}")
        time.sleep(0.05)


def wait_serving(site, number, timeout_s=60.0):
    """Waits until the hosts' router and all providers of a site send to this one of its boxes."""
    deadline = time.monotonic() + timeout_s
    while set((found := serving(site)).values()) != {number}:
        if time.monotonic() > deadline:
            raise LabError(f"site {site.name} is not served by box {number} after {timeout_s:.0f} s: {found}")
        time.sleep(0.05)
