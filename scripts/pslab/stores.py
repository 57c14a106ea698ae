"""Three etcd nodes for a lab with two boxes for each site: TLS both ways, a user with a password, a network of their own."""

import secrets
import subprocess
import time
from pathlib import Path

from . import certificates, net, plan
from .net import LabError

DIRECTORY = plan.RUN_DIR / "etcd"
CLIENTS, PEERS = 2379, 2380
START_TIMEOUT_S = 30.0
CHILDREN = {}  # Node -> its etcd, if this process started it.


def endpoint(node):
    return f"https://[{plan.store_address(node)}]:{CLIENTS}"


def endpoints():
    return [endpoint(node) for node in plan.STORES]


def start(say=print):
    """Makes certificates and starts all three; returns when they agree and know who may ask."""
    certificates.authority(DIRECTORY)
    for node in plan.STORES:
        certificates.issue(DIRECTORY, node, [plan.store_address(node)])
    certificates.issue(DIRECTORY, "root", [])
    for site in plan.SITES.values():
        # The gateway of etcd, which the boxes use, takes no certificate that names a user.
        certificates.issue(DIRECTORY, user(site), [], common_name=False)
        password_file(site).touch(mode=0o600)
        password_file(site).write_text(secrets.token_hex(16))
    for node in plan.STORES:
        launch(node)
    wait_healthy()
    allow_sites()
    say("etcd: three nodes agree")


def launch(node):
    """Starts one node, or starts it again with what it has on disk."""
    address = plan.store_address(node)
    cluster = ",".join(f"{name}=https://[{plan.store_address(name)}]:{PEERS}" for name in plan.STORES)
    tls = {"cert-file": f"{node}.pem", "key-file": f"{node}.key", "trusted-ca-file": "ca.pem"}
    words = [
        "etcd", "--name", node, "--data-dir", str(DIRECTORY / node), "--logger", "zap", "--log-level", "warn",
        "--listen-client-urls", endpoint(node), "--advertise-client-urls", endpoint(node),
        "--listen-peer-urls", f"https://[{address}]:{PEERS}", "--initial-advertise-peer-urls", f"https://[{address}]:{PEERS}",
        "--initial-cluster", cluster, "--client-cert-auth", "--peer-client-cert-auth",
    ]  # fmt: skip
    for name, file in tls.items():
        words += [f"--{name}", str(DIRECTORY / file), f"--peer-{name}", str(DIRECTORY / file)]
    with open(DIRECTORY / f"{node}.log", "ab") as log:
        try:
            CHILDREN[node] = subprocess.Popen(
                net.inside(node, words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        except FileNotFoundError:
            raise LabError("etcd is not there: run scripts/install-deps --services") from None


def stop(node):
    """Ends one node as a crash would."""
    net.end_processes([node], 0)
    if child := CHILDREN.pop(node, None):
        child.wait(timeout=10)


def bury():
    """Waits for nodes of ours that were ended."""
    while CHILDREN:
        CHILDREN.popitem()[1].wait(timeout=10)


def ctl(*arguments, node="etcd1", name="root", password=None, check=True):
    """Runs etcdctl in a node, by certificate and, once that is asked for, by password."""
    words = ["etcdctl", "--endpoints", ",".join(endpoints()), "--cacert", str(DIRECTORY / "ca.pem")]
    words += ["--cert", str(DIRECTORY / f"{name}.pem"), "--key", str(DIRECTORY / f"{name}.key")]
    words += ["--user", f"{name}:{password}"] if password else []
    return net.run(net.inside(node, ["env", "ETCDCTL_API=3", *words, *arguments]), check=check)


def user(site):
    return f"site-{site.name}"


def password_file(site):
    return DIRECTORY / f"{user(site)}.password"


def prefix(site):
    return f"/pshim6/{site.name}/"


def allow_sites():
    """Each site may read and write below its own prefix, and nobody anything without a password."""
    root = secrets.token_hex(16)
    (DIRECTORY / "root.password").touch(mode=0o600)
    (DIRECTORY / "root.password").write_text(root)
    ctl("user", "add", f"root:{root}")
    ctl("user", "grant-role", "root", "root")
    for site in plan.SITES.values():
        ctl("role", "add", user(site))
        ctl("role", "grant-permission", user(site), "readwrite", "--prefix=true", prefix(site))
        ctl("user", "add", f"{user(site)}:{password_file(site).read_text()}")
        ctl("user", "grant-role", user(site), user(site))
    ctl("auth", "enable")


def wait_healthy(timeout_s=START_TIMEOUT_S):
    deadline = time.monotonic() + timeout_s
    while ctl("endpoint", "health", check=False).returncode != 0:
        if time.monotonic() > deadline:
            tails = [f"{node}:\n{Path(DIRECTORY, f'{node}.log').read_text()[-1000:]}" for node in plan.STORES]
            raise LabError(f"etcd is not well after {timeout_s:.0f} s\n" + "\n".join(tails))
        time.sleep(0.2)
