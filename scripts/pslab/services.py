"""What the world beyond the core offers to both sites with `lab up --services`: DNS, by real servers.

BIND is the authority for the sites' domains, their reverse trees and a few domains without Shim6; it takes updates
signed with each site's key (RFC 2136, RFC 8945). unbound resolves for whoever asks. Both live in the node `dns`.
"""

import base64
import ipaddress
import secrets
import subprocess
import time
from pathlib import Path

from . import net, plan
from .net import LabError

CHILDREN = []  # Servers this process started: only it can wait for their end.
DIRECTORY = plan.RUN_DIR / "dns"
KEY_ALGORITHM = "hmac-sha256"
START_TIMEOUT_S = 15.0

# A domain of ordinary names, with every kind of record a host may ask for.
PLAIN = f"""
ext      AAAA  {plan.EXT_ADDRESS}
ext      A     192.0.2.7
ext      TXT   "no Shim6 here"
alias    CNAME ext
chain    CNAME alias
@        MX    10 ext
_http._tcp SRV 0 0 80 ext
web      HTTPS 1 . alpn=h2 ipv6hint={plan.EXT_ADDRESS}
long     TXT   {" ".join(['"' + "x" * 200 + '"'] * 12)}
four     A     192.0.2.8
odd      TYPE65400 \\# 4 01020304
"""


def reverse_zone(site):
    """The reverse tree of a site's identifiers."""
    network = ipaddress.IPv6Network(site.cmula)
    digits = network.network_address.exploded.replace(":", "")[: network.prefixlen // 4]
    return ".".join(reversed(digits)) + ".ip6.arpa"


def key_name(site):
    return f"{site.name}-site"


def key_file(site):
    """The key with which the site's updates are signed, as nsupdate takes it."""
    return DIRECTORY / f"{key_name(site)}.key"


def start(say=print):
    """Writes the servers' configuration and zones and starts both."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for site in plan.SITES.values():
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        text = f'key "{key_name(site)}" {{ algorithm {KEY_ALGORITHM}; secret "{secret}"; }};\n'
        key_file(site).touch(mode=0o600)
        key_file(site).write_text(text)
    for zone in zones():
        (DIRECTORY / f"{zone}zone").write_text(zone_text(zone))
    (DIRECTORY / "named.conf").write_text(named_conf())
    (DIRECTORY / "unbound.conf").write_text(unbound_conf())
    launch("named", ["named", "-f", "-n", "1", "-U", "1", "-c", str(DIRECTORY / "named.conf")])
    launch("unbound", ["unbound", "-d", "-p", "-c", str(DIRECTORY / "unbound.conf")])
    for address in (plan.DNS_AUTHORITY, plan.DNS_RESOLVER):
        wait_for(address)
    say("dns: BIND and unbound answer")


def zones():
    """Every zone's name; those of the sites can be updated."""
    yield "."
    for site in plan.SITES.values():
        yield f"{site.zone}."
        yield f"{reverse_zone(site)}."
    yield "plain.example."
    yield "signed.example."
    yield "fresh.example."


def zone_text(zone):
    head = "$TTL 30\n@ SOA ns.plain.example. admin.plain.example. 1 3600 600 86400 5\n@ NS ns.plain.example.\n"
    body = {
        "plain.example.": f"ns AAAA {plan.DNS_AUTHORITY}\n{PLAIN}",
        "signed.example.": f"www AAAA {plan.EXT_ADDRESS}\n",
        "fresh.example.": f"* AAAA {plan.EXT_ADDRESS}\n",
    }
    delegated = [f"{name} NS ns.plain.example.\n" for name in zones() if name != "."]
    return head + ("".join(delegated) if zone == "." else body.get(zone, ""))


def named_conf():
    parts = [
        f"""
options {{
    directory "{DIRECTORY}";
    pid-file "{DIRECTORY}/named.pid";
    session-keyfile "{DIRECTORY}/session.key";
    listen-on {{ none; }};
    listen-on-v6 {{ {plan.DNS_AUTHORITY}; }};
    recursion no;
    dnssec-validation no;
    notify no;
    minimal-responses no;
}};
controls {{ }};
logging {{ channel here {{ file "{DIRECTORY}/named.log"; severity info; print-time yes; }}; category default {{ here; }}; }};
"""
    ]
    for site in plan.SITES.values():
        parts.append(f'include "{key_file(site)}";\n')
        for zone in (f"{site.zone}.", f"{reverse_zone(site)}."):
            grant = f'update-policy {{ grant "{key_name(site)}" zonesub any; }};'
            parts.append(f'zone "{zone}" {{ type primary; file "{zone}zone"; {grant} }};\n')
    for zone in (".", "plain.example.", "fresh.example."):
        parts.append(f'zone "{zone}" {{ type primary; file "{zone}zone"; }};\n')
    signing = "dnssec-policy default; inline-signing yes;"
    parts.append(f'zone "signed.example." {{ type primary; file "signed.example.zone"; {signing} }};\n')
    return "".join(parts)


def unbound_conf():
    return f"""
server:
    interface: {plan.DNS_RESOLVER}
    access-control: ::/0 allow
    do-ip4: no
    chroot: ""
    username: ""
    directory: "{DIRECTORY}"
    pidfile: ""
    use-syslog: no
    logfile: "{DIRECTORY}/unbound.log"
    module-config: "iterator"
    num-threads: 1
    local-zone: "c.f.ip6.arpa." nodefault
    local-zone: "d.f.ip6.arpa." nodefault
    local-zone: "8.b.d.0.1.0.0.2.ip6.arpa." nodefault
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: {plan.DNS_AUTHORITY}
"""


def launch(name, command, node=plan.DNS):
    """Starts a server in a node; it ends with the node."""
    with open(DIRECTORY / f"{name}.out", "ab") as log:
        try:
            server = subprocess.Popen(
                net.inside(node, confined(command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            CHILDREN.append(server)
        except FileNotFoundError:
            raise LabError(f"{name} is not there: run scripts/install-deps --services") from None


def bury():
    """Waits for servers of ours that were ended."""
    while CHILDREN:
        CHILDREN.pop().wait(timeout=5)


def confined(command):
    """Debian's AppArmor profiles keep these servers from files of ours; where there are none, nothing is to be done."""
    try:
        enabled = open("/sys/module/apparmor/parameters/enabled").read().startswith("Y")
    except OSError:
        enabled = False
    return ["aa-exec", "-p", "unconfined", "--", *command] if enabled else command


def dig(server, *question, node=plan.DNS, timeout_s=2):
    """What dig says in short form."""
    command = ["dig", "-6", f"@{server}", "+short", "+tries=1", f"+time={timeout_s}", *question]
    return net.exec_in(node, command, check=False).stdout.split()


def with_resolver(node, folder, server, command):
    """The command, run in a node with a resolv.conf of its own, through the system's resolver."""
    Path(folder, "resolv.conf").write_text(f"nameserver {server}\n")
    script = f'mount --bind {folder}/resolv.conf /etc/resolv.conf; exec "$@"'
    return net.inside(node, ["unshare", "--mount", "sh", "-ec", script, "sh", *command])


def wait_for(address, node=plan.DNS):
    deadline = time.monotonic() + START_TIMEOUT_S
    while not dig(address, "plain.example", "SOA", node=node, timeout_s=1):
        if time.monotonic() > deadline:
            tails = [f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(DIRECTORY.glob("*.out"))]
            raise LabError(f"no DNS at {address} within {START_TIMEOUT_S:.0f} s\n" + "\n".join(tails))
        time.sleep(0.05)


def update(site, lines):
    """Has nsupdate change the site's zones, as whoever has its key may."""
    script = f"server {plan.DNS_AUTHORITY}\n" + "\n".join(lines) + "\nsend\n"
    net.exec_in(plan.DNS, ["nsupdate", "-k", str(key_file(site)), "-v"], input=script)
