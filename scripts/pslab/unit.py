#!/usr/bin/env python3
"""Runs a program as its systemd unit would have it run, without systemd: the account, the capabilities and nothing beyond
them, the limits, what of the file system may be written, the system calls that are let through.

    unit.py UNIT --uid N --gid N [--group N] --runtime DIR --state DIR -- PROGRAM ARGUMENTS…

Everything is read from the unit file, so that nothing said there can differ from what is tried here. Not tried: DevicePolicy=,
the Protect… settings that only hide things, and what Restrict… forbids beyond the list of system calls.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_CMP_EQ = 0x7FFF0000, 0x00050000, 4
EPERM = 1
# The one that everybody may run.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
AF = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
LIMITS = {"LimitNOFILE": resource.RLIMIT_NOFILE, "LimitMEMLOCK": resource.RLIMIT_MEMLOCK, "LimitCORE": resource.RLIMIT_CORE}


def settings(path):
    """The unit's [Service] section: name -> values in the order of the file."""
    found, section = {}, None
    for line in Path(path).read_text().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def words(unit, name):
    return [word for value in unit.get(name, []) for word in value.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unit")
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--group", type=int, action="append", default=[], help="a supplementary group")
    parser.add_argument("--runtime", required=True, help="where RuntimeDirectory= is")
    parser.add_argument("--state", required=True, help="where StateDirectory= is")
    at = sys.argv.index("--")
    given, program = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    unit = settings(given.unit)
    # Asked as root: the daemon's account may not be able to read the checkout.
    confinement = {
        "umask": int(unit["UMask"][0], 8),
        "calls": sorted(system_calls(unit)),
        "families": [AF[word] for word in words(unit, "RestrictAddressFamilies")],
        "mdwe": unit.get("MemoryDenyWriteExecute") == ["yes"],
    }
    directories(unit, given)
    limits(unit)
    mounts(unit, (given.runtime, given.state))
    inner = [PYTHON, "-B", os.path.abspath(__file__), json.dumps(confinement), *program]
    os.execvp("setpriv", [*account(unit, given), *inner])


def directories(unit, given):
    for kind, folder in (("Runtime", given.runtime), ("State", given.state)):
        os.makedirs(folder, exist_ok=True)
        os.chown(folder, given.uid, given.gid)
        os.chmod(folder, int(unit[f"{kind}DirectoryMode"][0], 8))
        os.environ[f"{kind.upper()}_DIRECTORY"] = folder


def limits(unit):
    for name, number in LIMITS.items():
        value = unit[name][0]
        wanted = resource.RLIM_INFINITY if value == "infinity" else int(value)
        try:
            resource.setrlimit(number, (wanted, wanted))
        except ValueError:
            # A container's root may not raise limits; less than the unit gives is no easier for the daemon.
            pass


def mounts(unit, writable):
    """`ProtectSystem=strict`: all is read-only but what the unit gives the daemon, /dev, /proc and, in part, /sys."""
    if unit["ProtectSystem"] != ["strict"] or unit["ProtectKernelTunables"] != ["yes"]:
        raise SystemExit("unit.py knows ProtectSystem=strict and ProtectKernelTunables=yes only")
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source, target, flags):
        if libc.mount(source.encode(), target.encode(), None, flags, None) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target}")

    before = os.readlink("/proc/self/ns/mnt")
    if libc.unshare(CLONE_NEWNS) != 0 or os.readlink("/proc/self/ns/mnt") == before:
        raise SystemExit("no mount namespace of our own, and nothing is mounted in anybody else's")
    mount("none", "/", MS_REC | MS_PRIVATE)
    for folder in [*writable, "/proc/sys"]:
        mount(folder, folder, MS_BIND)
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kept = ("/dev", "/proc", *map(os.path.realpath, writable))
    for place in dict.fromkeys(places):
        if place == "/proc/sys" or not any(place == it or place.startswith(it + "/") for it in kept):
            try:
                # Always with MS_BIND: without it the file system itself would become read-only, for everybody.
                mount("none", place.replace("\\040", " "), MS_REMOUNT | MS_BIND | MS_RDONLY)
            except OSError as error:
                # What lies beneath another mount cannot be reached, by the daemon neither.
                print(f"unit.py: {error}", file=sys.stderr)


def account(unit, given):
    """setpriv with exactly the unit's capabilities."""
    ambient, bounding = words(unit, "AmbientCapabilities"), words(unit, "CapabilityBoundingSet")

    def listed(names):
        return "-all" + "".join(f",+{name.removeprefix('CAP_').lower()}" for name in names)

    groups = ",".join(str(group) for group in [given.gid, *given.group])
    command = ["setpriv", f"--reuid={given.uid}", f"--regid={given.gid}", f"--groups={groups}"]
    command += [f"--inh-caps={listed(ambient)}", f"--ambient-caps={listed(ambient)}", f"--bounding-set={listed(bounding)}"]
    if unit.get("NoNewPrivileges") == ["yes"]:
        command.append("--no-new-privs")
    return command


def system_calls(unit):
    """The names that `SystemCallFilter=` lets through. Like systemd: a `~` takes away, and @default is always there."""
    allowed = expand("@default")
    for value in unit["SystemCallFilter"]:
        names = set().union(*(expand(word) for word in value.removeprefix("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def expand(word):
    if not word.startswith("@"):
        return {word}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True)
    inner = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return set().union(*(expand(line) for line in inner if line and not line.startswith("#")))


def confined(confinement, program):
    """The second half, as the daemon's account: loads the filter of system calls, of address families, and the refusal of
    memory that is written and executed, and becomes the daemon."""
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(SCMP_ACT_ERRNO | EPERM)))

    class Compare(ctypes.Structure):
        _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

    for name in confinement["calls"]:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue  # Not one of this machine's.
        if name == "socket":
            for family in confinement["families"]:
                compare = (Compare * 1)(Compare(0, SCMP_CMP_EQ, family, 0))
                check(seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(SCMP_ACT_ALLOW), number, 1, compare))
        else:
            check(seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(SCMP_ACT_ALLOW), number, 0, None))
    if confinement["mdwe"]:
        # Kernels before 6.3 do not know it.
        libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    check(seccomp.seccomp_load(context))
    os.umask(confinement["umask"])
    os.execv(program[0], program)


def check(answer):
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        confined(json.loads(sys.argv[1]), sys.argv[2:])
    main()
