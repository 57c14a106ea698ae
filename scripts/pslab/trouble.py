"""What can happen to a lab with two boxes for each site, by name, and what sessions notice of it."""

import time
from dataclasses import dataclass
from typing import Callable

from . import box, lab, net, plan, routing, stores
from .net import LabError
from .stream import Stream

FLAPS = ((0.3, 0.7),) * 4  # seconds away, seconds back
PATIENCE_S = 60.0
# Sender, receiver: both directions, every host, four contexts.
SESSIONS = (("a-h1", "b-h1"), ("b-h2", "a-h2"), ("a-h2", "b-h1"), ("b-h2", "a-h1"))


@dataclass(frozen=True)
class Trouble:
    """Something that begins and ends."""

    name: str
    begin: Callable
    end: Callable
    about: str = ""  # the site or provider it happens to; two at a time never concern the same one
    # Which box of that site serves while it lasts, if that is another one.
    serves: int = 1


def troubles(site_name="a"):
    """All there are, for one site and its providers."""
    site = plan.SITES[site_name]
    first = site.boxes[0]

    def restart():
        box.start(first)
        box.wait_ready(first)

    def flap(name):
        for away, back in FLAPS:
            net.cut(name)
            time.sleep(away)
            net.heal(name)
            time.sleep(back)

    yield Trouble("primary killed", lambda: box.kill(first), restart, site.name, 2)
    yield Trouble("primary without power", lambda: lab.power_off(first), lambda: lab.power_on(first), site.name, 2)
    yield Trouble("backup killed", lambda: box.kill(site.second), lambda: start_and_wait(site.second), site.name)
    yield Trouble("boxes split", lambda: management(first, "down"), lambda: management(first, "up"), "management")
    yield Trouble("one store node cut", lambda: store_link("etcd1", "down"), lambda: store_link("etcd1", "up"), "stores")
    yield Trouble("all stores gone", lambda: each_store(stores.stop), lambda: each_store(stores.launch), "stores")
    for provider in site.providers:
        name = provider.name
        yield Trouble(f"provider {name} cut", lambda n=name: net.cut(n), lambda n=name: net.heal(n), name)
        yield Trouble(f"provider {name} flaps", lambda n=name: flap(n), lambda n=name: net.heal(n), name)


def start_and_wait(site):
    box.start(site)
    box.wait_ready(site)


def management(site, state):
    """A box loses, or finds again, its peer and the stores."""
    # A machine without power has no link to take down, and comes back with one that is up.
    net.exec_in(plan.MGMT_SWITCH, ["ip", "link", "set", f"{site.name}{site.number}", state], check=False)


def store_link(node, state):
    net.exec_in(plan.MGMT_SWITCH, ["ip", "link", "set", node, state])


def each_store(do):
    for node in plan.STORES:
        do(node)


class Sessions:
    """The sessions that are to live through it all."""

    def __init__(self, hosts, patience_s=PATIENCE_S, first_port=6001):
        self.streams = []
        try:
            for at, (sender, receiver) in enumerate(SESSIONS):
                ulid = hosts[receiver]["ulid"]
                self.streams.append(Stream(sender, receiver, ulid, first_port + at, patience_s=patience_s))
        except BaseException:
            self.abort()
            raise

    def wait_flowing(self, timeout_s=PATIENCE_S):
        """Waits until something arrives in all of them; fails at once if one is over."""
        deadline = time.monotonic() + timeout_s
        while not all(stream.flows() for stream in self.streams):
            over = [stream for stream in self.streams if not stream.is_alive()]
            if over:
                raise LabError("; ".join(f"{stream.name} is over: {stream.events[-3:]}" for stream in over))
            if time.monotonic() > deadline:
                still = [stream.name for stream in self.streams if not stream.flows()]
                raise LabError(f"nothing arrives after {timeout_s:.0f} s: {still}")
            time.sleep(0.02)

    def silence_ms(self, since, until):
        """The longest silence of any session that began in a span of time."""
        return self.longest(since, until)[0]

    def longest(self, since, until):
        """The longest silence of any session that began in a span of time, and which session that was."""
        return max((stream.silence_ms(since, until), stream.name) for stream in self.streams)

    def stop(self):
        """Ends them in order; what was wrong with any."""
        return [wrong for stream in self.streams if (wrong := stream.stop())]

    def abort(self):
        for stream in self.streams:
            stream.abort()


def suffer(sessions, trouble, hold_s=2.0, settle_s=1.5):
    """One trouble from its beginning until everything is as before. The longest silences in milliseconds that began while it
    lasted, and when it ended."""
    site = plan.SITES.get(trouble.about)
    began = time.time()
    try:
        trouble.begin()
        time.sleep(hold_s)
        if site:
            routing.wait_serving(site, trouble.serves)
        sessions.wait_flowing()
    finally:
        ended = time.time()
        trouble.end()
    if site:
        routing.wait_serving(site, 1)
    box.wait_fit()
    time.sleep(settle_s)
    sessions.wait_flowing()
    over = time.time()
    return {"begin_ms": sessions.silence_ms(began - 0.1, ended), "end_ms": sessions.silence_ms(ended, over), "took_s": over - began}
