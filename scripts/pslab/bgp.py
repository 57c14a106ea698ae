"""BGP between site a and its providers, by FRR, and what the site's router tells the box of it (BMP over TLS).

The site's router is a `bgpd -M bmp` beside the box, on a link of its own to each provider; each provider has a `bgpd`, too. FRR
speaks no TLS, so its BMP goes to a socat next to it, which does. Nobody installs routes: the lab's own are there already.
"""

import os
import shutil
import socket
import subprocess
import time

from . import net, plan
from .net import LabError

DIRECTORY = plan.RUN_DIR / "bgp"
BGPD = "/usr/lib/frr/bgpd"
BMP_PORT, PLAIN_PORT = 11019, 11020
SITE_AS = 65000
FAMILY = "address-family ipv6 unicast"
CHILDREN = []


def needed():
    """What is not installed, in words; nothing if all is there."""
    missing = [] if os.access(BGPD, os.X_OK) else [BGPD]
    return missing + [name for name in ("socat", "openssl") if not shutil.which(name)]


def neighbour(name):
    """The provider's end of its BGP session."""
    return f"10.77.{plan.PROVIDERS[name].index}.1"


def own(name):
    return f"10.77.{plan.PROVIDERS[name].index}.2"


def provider_as(name):
    return 65000 + plan.PROVIDERS[name].index


def make_certificates():
    """An authority for the box and one for routers, and a certificate of each."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=DIRECTORY, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for authority, leaf in (("boxes", "box"), ("routers", "router")):
        openssl("req", "-x509", *curve, "-keyout", f"{authority}-key.pem", "-out", f"{authority}.pem", "-subj",
                f"/CN={authority}", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")
        openssl("req", *curve, "-keyout", f"{leaf}-key.pem", "-out", f"{leaf}.csr", "-subj", f"/CN={leaf}")
        (DIRECTORY / "names.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", f"{leaf}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}-key.pem",
                "-CAcreateserial", "-out", f"{leaf}.pem", "-days", "2", "-extfile", "names.ext")
        os.chmod(DIRECTORY / f"{leaf}-key.pem", 0o600)


def section(names):
    """The box's [bmp]."""
    sources = "".join(
        f'[[bmp.source]]\nprovider = "{name}"\npeer = "{neighbour(name)}"\nasn = {provider_as(name)}\nrouter = "edge"\n'
        for name in names
    )
    return (
        f'\n[bmp]\nlisten = "127.0.0.1:{BMP_PORT}"\ncertificate = "{DIRECTORY}/box.pem"\nkey = "{DIRECTORY}/box-key.pem"\n'
        f'clients_ca = "{DIRECTORY}/routers.pem"\nstall_s = 60\n{sources}'
    )


def prepare():
    """Everything that has to be there before the box is told of it."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    DIRECTORY.chmod(0o755)
    make_certificates()


def start(names, prefixes):
    """Links, routers, and the way to the box. Each provider has these prefixes to give."""
    box = plan.SITES["a"].box
    for name in names:
        node, port = plan.PROVIDERS[name].node, f"bgp-{name}"
        net.run(["ip", "link", "add", "name", port, "netns", plan.namespace(box), "type", "veth", "peer", "name",
                 "bgp", "netns", plan.namespace(node)])
        net.exec_in(box, ["sh", "-ec", f"ip addr add {own(name)}/24 dev {port}; ip link set {port} up"])
        net.exec_in(node, ["sh", "-ec", f"ip addr add {neighbour(name)}/24 dev bgp; ip link set bgp up"])
        networks = "".join(f"  network {prefix}\n" for prefix in prefixes)
        launch(node, f"isp-{name}", provider_as(name), neighbour(name), [(own(name), SITE_AS)], networks)
    bmp = (
        " bmp targets box\n  bmp stats interval 5000\n  bmp monitor ipv6 unicast post-policy\n"
        f"  bmp connect 127.0.0.1 port {PLAIN_PORT} min-retry 100 max-retry 500\n exit\n"
    )
    start_wrapper()
    peers = [(neighbour(name), provider_as(name)) for name in names]
    launch(box, "edge", SITE_AS, own(names[0]), peers, "", bmp, ["-M", "bmp"])


def start_wrapper():
    """Takes what FRR says and carries it to the box over TLS."""
    where = f"OPENSSL:127.0.0.1:{BMP_PORT},cert=router.pem,key=router-key.pem,cafile=boxes.pem,openssl-min-proto-version=TLS1.3"
    spawn(plan.SITES["a"].box, "socat", ["socat", f"TCP4-LISTEN:{PLAIN_PORT},bind=127.0.0.1,fork,reuseaddr", where])


def launch(node, name, number, router_id, peers, networks, more="", arguments=()):
    """A bgpd with its own folder."""
    folder = DIRECTORY / name
    folder.mkdir(exist_ok=True)
    lines = [f"hostname {name}", f"router bgp {number}", f" bgp router-id {router_id}"]
    lines += [" no bgp default ipv4-unicast", " no bgp ebgp-requires-policy", " no bgp network import-check"]
    for address, peer in peers:
        lines += [f" neighbor {address} remote-as {peer}", f" neighbor {address} timers 3 9"]
        lines += [f" neighbor {address} timers connect 1", f" neighbor {address} advertisement-interval 0"]
    lines += [f" {FAMILY}"] + [f"  neighbor {address} activate" for address, _ in peers]
    text = "\n".join(lines) + f"\n{networks} exit-address-family\n{more}"
    (folder / "bgpd.conf").write_text(text)
    shutil.chown(folder, "frr", "frr")
    for path in (folder / "bgpd.vty", folder / "bgpd.pid"):
        path.unlink(missing_ok=True)
    spawn(node, name, [BGPD, "-n", "-Z", *arguments, "-f", f"{folder}/bgpd.conf", "-i", f"{folder}/bgpd.pid",
                       "--vty_socket", str(folder), "-z", f"{folder}/zserv", "-P", "0", "-u", "frr", "-g", "frr"])
    deadline = time.monotonic() + 15
    while not (folder / "bgpd.vty").exists():
        if time.monotonic() > deadline:
            raise LabError(f"bgpd of {name} does not start:\n{(DIRECTORY / f'{name}.log').read_text()}")
        time.sleep(0.05)


def spawn(node, name, command):
    with open(DIRECTORY / f"{name}.log", "ab") as log:
        process = subprocess.Popen(net.inside(node, command), cwd=DIRECTORY, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, start_new_session=True)
    CHILDREN.append(process)
    return process


def say(name, *commands):
    """Commands to a bgpd, by its own socket: each ends with a zero, its answer with three and a status."""
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(10)
        vty.connect(str(DIRECTORY / name / "bgpd.vty"))
        for command in ("enable", *commands):
            vty.sendall(command.encode() + b"\0")
            answer = b""
            while not (len(answer) >= 4 and answer[-4:-1] == b"\0\0\0"):
                piece = vty.recv(65536)
                if not piece:
                    raise LabError(f"bgpd of {name} closed after {command!r}")
                answer += piece
            if answer[-1] != 0:
                raise LabError(f"bgpd of {name}: {command!r}: {answer[:-4].decode(errors='replace')}")
    return answer[:-4].decode(errors="replace")


def announce(name, *prefixes):
    say(f"isp-{name}", "configure terminal", f"router bgp {provider_as(name)}", FAMILY, *[f"network {it}" for it in prefixes])


def withdraw(name, *prefixes):
    say(f"isp-{name}", "configure terminal", f"router bgp {provider_as(name)}", FAMILY, *[f"no network {it}" for it in prefixes])


def session(name, up):
    """Ends the BGP session with a provider, or lets it come up again."""
    no = "no " if up else ""
    say(f"isp-{name}", "configure terminal", f"router bgp {provider_as(name)}", f"{no}neighbor {own(name)} shutdown")


def pid(name):
    return int((DIRECTORY / name / "bgpd.pid").read_text())
