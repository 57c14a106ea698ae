"""What a reader needs to place the numbers."""

import os
import re
import subprocess
from pathlib import Path

from .programs import ROOT, tool

CPU = Path("/sys/devices/system/cpu")


def describe():
    info = Path("/proc/cpuinfo").read_text()
    flags = set(_first(r"^flags\s*: (.*)$", info).split())
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    return {
        "processor": _first(r"^model name\s*: (.*)$", info) or "unknown",
        "cores": os.cpu_count(),
        "threads_per_core": _threads(),
        "numa_nodes": nodes,
        "virtual": "hypervisor" in flags,
        "simd": [name for name in ("sse4_2", "avx2", "avx512f") if name in flags],
        "caches": _caches(),
        "memory_gb": round(int(_first(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()) or 0) / 1e6, 1),
        "transparent_hugepages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "governor": _text(CPU / "cpu0/cpufreq/scaling_governor") or "none",
        "isolated": _text(CPU / "isolated") or "none",
        "kernel": os.uname().release,
        "toolchain": _said([str(ROOT / "scripts" / "cargo"), "--version"]),
        "dpdk": _said(["pkg-config", "--modversion", "libdpdk"]) if tool("pkg-config") else "none",
    }


def line(machine):
    """The same in one line."""
    virtual = ", a virtual machine" if machine["virtual"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['caches'])}){virtual}, "
        f"{machine['memory_gb']} GB, transparent hugepages {machine['transparent_hugepages']}, governor {machine['governor']}, "
        f"isolated cores {machine['isolated']}, Linux {machine['kernel']}, DPDK {machine['dpdk']}, {machine['toolchain']}"
    )


def commit():
    return _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or None


def load():
    return round(os.getloadavg()[0], 2)


def stolen():
    """Microseconds for which the machine below did not run one of our cores, to the tick (10 ms)."""
    ticks = sum(int(line.split()[8]) for line in Path("/proc/stat").read_text().splitlines() if re.match(r"cpu\d", line))
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")


def _first(pattern, text):
    found = re.search(pattern, text, re.M)
    return found[1] if found else ""


def _text(path):
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _chosen(path):
    return _first(r"\[(\w+)\]", _text(path)) or "no"


def _threads():
    siblings = _text(CPU / "cpu0/topology/thread_siblings_list")
    return len(siblings.replace("-", ",").split(",")) if siblings else 1


def _caches():
    caches = []
    for folder in sorted((CPU / "cpu0/cache").glob("index*")):
        level, kind, size = (_text(folder / name) for name in ("level", "type", "size"))
        caches.append(f"L{level} {kind.lower()} {size}")
    return caches


def _said(command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
