"""The lab's plan: which nodes there are, how they are wired and which addresses they have.

    a-h1 ─┐            ┌─ x0 isp-x ─┐        ┌─ isp-z z0 ─┐            ┌─ b-h1
          ├─ a-lan ─ a-box          ├─ core ─┤          b-box ─ b-lan ─┤
    a-h2 ─┘            └─ y0 isp-y ─┘   │    └─ isp-w w0 ─┘            └─ b-h2
                                       ext

With services (`up --services`) there are also `dns` beside ext, and isp-v, behind a port of a-box that no provider
has yet.

With two boxes for each site (`up --ha`) hosts have a router of their own, and every link of a box is a switch:

    a-h1 ─┐                 ┌─ a-box ──┬─ isp-x ─┐
          ├─ a-rtr ─ (a-in)─┤          │         ├─ core ─ …
    a-h2 ─┘                 └─ a-box2 ─┴─ isp-y ─┘
                                  └ (mgmt) ─ etcd1, etcd2, etcd3

Nothing here touches the machine; `net` makes it real. Addresses are from the documentation prefix
2001:db8::/32 (providers) and from fc00::/8 (identifiers, which nobody routes).
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# A second lab can live beside the first under another instance name.
INSTANCE = os.environ.get("PSHIM6_LAB", "ps6")
RUN_DIR = Path("/run/pshim6-lab" if INSTANCE == "ps6" else f"/run/pshim6-lab-{INSTANCE}")


@dataclass(frozen=True)
class Provider:
    """One provider of one site: a kernel router with two ports, `cust0` (to the box) and `up0` (to the core)."""

    name: str
    site: str
    block: str  # what the provider owns, delegates and lets through its ingress filter
    index: int

    @property
    def node(self):
        return f"isp-{self.name}"

    @property
    def port(self):
        """The box's port towards this provider."""
        return f"{self.name}0"

    @property
    def locators(self):
        """The /64 out of the block from which the box makes locators."""
        return f"{self.block}1::/64"

    @property
    def prefix(self):
        return f"{self.block}:/48"

    @property
    def link_isp(self):
        return f"{self.block}ffff::1"

    @property
    def link_box(self):
        return self.link_of(1)

    def link_of(self, number):
        """What a site's first or second box is called on this provider's link."""
        return f"{self.block}ffff::{1 + number}"

    def link_kernel(self, number):
        """The same for the kernel beside that box, whose routing daemon talks to the provider's."""
        return f"{self.block}ffff::1{number}"

    @property
    def switch(self):
        """The helper namespace between the provider and a site's two boxes."""
        return f"{self.name}-sw"

    @property
    def number_as(self):
        return 64600 + self.index

    @property
    def up_core(self):
        return f"2001:db8:c:{self.index}::1"

    @property
    def up_isp(self):
        return f"2001:db8:c:{self.index}::2"


@dataclass(frozen=True)
class Site:
    """One site: its identifier block, its LAN and its box."""

    name: str
    box_id: int
    block: str
    providers: tuple
    hosts: tuple = field(default=("h1", "h2"))
    number: int = 1  # of its boxes, which is meant

    @property
    def cmula(self):
        return f"{self.block}:/48"

    @property
    def lan(self):
        return f"{self.block}0:1::/64"

    @property
    def box_address(self):
        return f"{self.block}0:1::1"

    @property
    def box(self):
        return f"{self.name}-box{self.suffix}"

    @property
    def suffix(self):
        return "" if self.number == 1 else str(self.number)

    @property
    def second(self):
        """The same site, as its second box sees it."""
        return replace(self, number=2, box_id=self.box_id + 1)

    @property
    def boxes(self):
        first = SITES[self.name]
        return (first, first.second)

    @property
    def router(self):
        """Between the hosts and the boxes, where there are two."""
        return f"{self.name}-rtr"

    @property
    def inner(self):
        """The helper namespace between that router and the boxes."""
        return f"{self.name}-in"

    @property
    def number_as(self):
        return 64700 + SITES[self.name].box_id

    @property
    def inner_address(self):
        """This box's address between the hosts' router and the boxes."""
        return f"{self.block}0:f::{self.number}"

    def management(self):
        """This box's address on the management network."""
        return f"{MGMT}:{self.name}{self.number}::1"

    @property
    def zone(self):
        """The domain of its hosts, with services."""
        return f"{self.name}.example"

    @property
    def spares(self):
        """Providers its box has a port for, and no contract with."""
        return tuple(spare for spare in SPARES.values() if spare.site == self.name)

    @property
    def switch(self):
        """The helper namespace that holds the LAN's bridge, so that the box's kernel never sees the LAN."""
        return f"{self.name}-lan"

    @property
    def host_nodes(self):
        return tuple(f"{self.name}-{host}" for host in self.hosts)

    @property
    def run_dir(self):
        return RUN_DIR / f"{self.name}{self.suffix}"

    @property
    def config(self):
        return self.run_dir / "site.toml"

    @property
    def control_socket(self):
        return self.run_dir / "control.sock"


PROVIDERS = {
    "x": Provider("x", "a", "2001:db8:a1:", 1),
    "y": Provider("y", "a", "2001:db8:a2:", 2),
    "z": Provider("z", "b", "2001:db8:b1:", 3),
    "w": Provider("w", "b", "2001:db8:b2:", 4),
}

# Wired to a box's port, and nobody's provider before somebody says so; there only with services.
SPARES = {
    "v": Provider("v", "a", "2001:db8:a3:", 5),
}

SITES = {
    "a": Site("a", 1, "fc00:a:", (PROVIDERS["x"], PROVIDERS["y"])),
    "b": Site("b", 2, "fc00:b:", (PROVIDERS["z"], PROVIDERS["w"])),
}

CORE = "core"
EXT = "ext"
DNS = "dns"
DNS_CORE_ADDRESS = "2001:db8:d::1"
DNS_AUTHORITY = "2001:db8:d::53"  # BIND, for both sites and their reverse trees
DNS_RESOLVER = "2001:db8:d::54"  # unbound, for whoever asks
EXT_CORE_ADDRESS = "2001:db8:e::1"
EXT_ADDRESS = "2001:db8:e::2"

# What a user names on the command line; the two switches are helpers and stay out of sight.
NODES = ("a-h1", "a-h2", "a-box", "isp-x", "isp-y", "core", "isp-z", "isp-w", "b-box", "b-h1", "b-h2", "ext")
SERVICE_NODES = (DNS, *(spare.node for spare in SPARES.values()))
HELPERS = tuple(site.switch for site in SITES.values())

# With two boxes for each site.
IDENTIFIERS = "fc00::/7"
MGMT = "fd00:99:0"
MGMT_SWITCH = "mgmt-sw"
STORES = ("etcd1", "etcd2", "etcd3")
HA_BOXES = tuple(site.second.box for site in SITES.values())
HA_ROUTERS = tuple(site.router for site in SITES.values())
HA_HELPERS = (
    *(site.inner for site in SITES.values()), *(provider.switch for provider in PROVIDERS.values()), MGMT_SWITCH,
)  # fmt: skip
HA_NODES = HA_BOXES + HA_ROUTERS + STORES


def every_node():
    """Whatever a lab of any kind may have."""
    return NODES + SERVICE_NODES + HELPERS + HA_NODES + HA_HELPERS


def store_address(node):
    """An etcd node's address on the management network."""
    return f"{MGMT}:e::{STORES.index(node) + 1}"


def kernel_port(port):
    """The kernel's interface beside a box's port."""
    return f"k-{port}"


def box_nodes():
    """The namespaces that boxes live in."""
    return tuple(site.box for site in SITES.values()) + HA_BOXES


def namespace(node):
    """Name of the network namespace that plays `node`."""
    if node not in every_node():
        raise KeyError(node)
    return f"{INSTANCE}-{node}"


def provider_of(locator):
    """The provider whose block holds this address, or None."""
    import ipaddress

    address = ipaddress.IPv6Address(locator)
    for provider in {**PROVIDERS, **SPARES}.values():
        if address in ipaddress.IPv6Network(provider.prefix):
            return provider
    return None
