"""CGA (RFC 3972), HBA sets (RFC 5535) and the Shim6 signature (RFC 5533 §5.15.5), made and verified.

RSA is left to the `openssl` program: its keys are needed only by a peer that signs.
"""

import hashlib
import secrets
import subprocess
import tempfile
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from . import wire

MULTI_PREFIX = 0x0012  # RFC 5535 §10
SHIM6_TAG = bytes.fromhex("4a305662" "4858574b" "3655416f" "506a6d48")  # RFC 5533 §5.15.5
IGNORED_BITS = 0x1CFFFFFFFFFFFFFF  # Mask1 of RFC 3972 §2: all but Sec, u and g
RSA_ENCRYPTION = bytes.fromhex("300d06092a864886f70d0101010500")


class Unproved(Exception):
    """Parameters, an address or a signature that do not belong together."""


# --- making ----------------------------------------------------------------------------------------------------


@dataclass
class Identity:
    """Addresses of one host that are bound together, the parameters of the first, and a key when there is one."""

    addresses: list
    pds: bytes
    key: str = None  # PEM

    def sign(self, generation, locators):
        """The CGA Signature option's contents for the locators whose method is CGA."""
        text = SHIM6_TAG + generation.to_bytes(4, "big") + b"".join(locator.packed for locator in locators)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as key:
            key.write(self.key)
            key.flush()
            return openssl(["dgst", "-sha1", "-sign", key.name], text)


def hba_set(prefixes, key=None):
    """An HBA set with Sec 0 (RFC 5535 §6), hybrid with CGA when there is a key."""
    prefixes = [IPv6Network(prefix).network_address.packed[:8] for prefix in prefixes]
    public = public_key(key) if key else nonce_as_key()
    content = (1 << 31 if key else 0).to_bytes(4, "big") + b"".join(prefixes)
    extension = MULTI_PREFIX.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    return assemble(prefixes, public + extension, key)


def cga(prefix, key):
    """A plain CGA, without the Multi-Prefix extension."""
    return assemble([IPv6Network(prefix).network_address.packed[:8]], public_key(key), key)


def assemble(prefixes, tail, key):
    modifier, addresses = secrets.token_bytes(16), []
    for prefix in prefixes:
        hash1 = hashlib.sha1(modifier + prefix + b"\0" + tail).digest()[:8]
        addresses.append(IPv6Address(prefix + bytes((hash1[0] & 0x1C,)) + hash1[1:]))
    return Identity(addresses, modifier + prefixes[0] + b"\0" + tail, key)


def make_key(bits=1024):
    return openssl(["genrsa", str(bits)]).decode()


def public_key(key):
    """The DER SubjectPublicKeyInfo of a PEM key."""
    return openssl(["pkey", "-pubout", "-outform", "DER"], key.encode())


def nonce_as_key():
    """A random number of 384 bits dressed as an RSA key (RFC 5535 §6)."""
    modulus = (1 << 383 | secrets.randbits(383)).to_bytes(48, "big")
    key = der(0x30, der(0x02, b"\0" + modulus) + der(0x02, b"\1\0\1"))
    return der(0x30, RSA_ENCRYPTION + der(0x03, b"\0" + key))


def openssl(arguments, text=b""):
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True)
    if done.returncode != 0:
        raise Unproved(f"openssl {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


# --- verifying -------------------------------------------------------------------------------------------------


@dataclass
class Parameters:
    """A CGA Parameter Data Structure taken apart."""

    octets: bytes
    collisions: int
    key: bytes
    prefixes: list  # None without a Multi-Prefix extension


def parse_pds(octets, dislike):
    if len(octets) < 25:
        raise Unproved(f"parameters of {len(octets)} octets")
    if octets[24] > 2:
        raise Unproved(f"collision count {octets[24]}")
    key, at = read_der(octets, 25, 0x30)
    check_key(key, dislike)
    found = Parameters(octets, octets[24], octets[25:at], None)
    with_key = None
    while at < len(octets):
        kind, size = int.from_bytes(octets[at : at + 2], "big"), int.from_bytes(octets[at + 2 : at + 4], "big")
        content, at = octets[at + 4 : at + 4 + size], at + 4 + size
        if at > len(octets):
            raise Unproved("an extension is cut short")
        if kind != MULTI_PREFIX:
            continue
        if found.prefixes is not None:
            dislike("parameters with two Multi-Prefix extensions")
        if size < 12 or size % 8 != 4:
            raise Unproved(f"a Multi-Prefix extension of {size} octets")
        if int.from_bytes(content[:4], "big") & 0x7FFFFFFF:
            dislike("Reserved of the Multi-Prefix extension is not zero")
        with_key = content[0] >> 7
        found.prefixes = [content[i : i + 8] for i in range(4, size, 8)]
    modulus = read_integer(key)
    if with_key == 0 and len(modulus.lstrip(b"\0")) > 48:
        dislike(f"the random number of an HBA-only set has {8 * len(modulus)} bits, not 384")
    return found


def check_key(key, dislike):
    if not key.startswith(RSA_ENCRYPTION):
        dislike(f"the key's algorithm is not rsaEncryption: {key[:15].hex()}")


def read_integer(key):
    """The modulus of an RSA SubjectPublicKeyInfo."""
    try:
        bits, _ = read_der(key, len(RSA_ENCRYPTION), 0x03)
        pair, _ = read_der(bits, 1, 0x30)
        return read_der(pair, 0, 0x02)[0]
    except IndexError:
        raise Unproved("the public key is not DER") from None


def prove_cga(address, found):
    """RFC 3972 §5 with the parameters as they are."""
    if found.octets[16:24] != address.packed[:8]:
        raise Unproved(f"the parameters' prefix is not that of {address}")
    identifier = int.from_bytes(address.packed[8:], "big")
    hash1 = int.from_bytes(hashlib.sha1(found.octets).digest()[:8], "big")
    if (hash1 ^ identifier) & IGNORED_BITS:
        raise Unproved(f"Hash1 does not make {address}")
    zeros = 2 * (identifier >> 61)
    if any(hashlib.sha1(found.octets[:16] + bytes(9) + found.octets[25:]).digest()[:zeros]):
        raise Unproved(f"Hash2 has not the zeros {address} claims")


def prove_hba(address, found):
    """RFC 5535 §7.2: the set's parameters with the prefix of the address."""
    if found.prefixes is None:
        raise Unproved("no Multi-Prefix extension")
    prefix = address.packed[:8]
    if prefix not in found.prefixes:
        raise Unproved(f"the prefix of {address} is not in the set")
    octets = found.octets[:16] + prefix + found.octets[24:]
    prove_cga(address, Parameters(octets, found.collisions, found.key, found.prefixes))


def prove_list(listed, ulid, pds, signature, dislike):
    """A locator list against its sender's ULID. Raises with the index of the locator that is not proved."""
    found = parse_pds(pds, dislike)
    prove_cga(ulid, found)
    signed = [locator for locator, method in zip(listed.locators, listed.methods) if method == wire.CGA]
    for index, (locator, method) in enumerate(zip(listed.locators, listed.methods)):
        if method == wire.HBA:
            prove_hba(locator, found)
        elif method != wire.CGA:
            raise Unproved(f"verification method {method} of locator {index}")
    if signed:
        if signature is None:
            raise Unproved("locators by CGA without a signature")
        text = SHIM6_TAG + listed.generation.to_bytes(4, "big") + b"".join(locator.packed for locator in signed)
        verify(found.key, text, signature)


def verify(key, text, signature):
    with tempfile.NamedTemporaryFile(suffix=".der") as public, tempfile.NamedTemporaryFile() as signed:
        public.write(key)
        signed.write(signature)
        public.flush()
        signed.flush()
        openssl(["dgst", "-sha1", "-keyform", "DER", "-verify", public.name, "-signature", signed.name], text)


# --- the little DER it takes -----------------------------------------------------------------------------------


def der(kind, contents):
    length = len(contents)
    if length < 128:
        return bytes((kind, length)) + contents
    size = (length.bit_length() + 7) // 8
    return bytes((kind, 0x80 | size)) + length.to_bytes(size, "big") + contents


def read_der(octets, at, kind):
    """(contents, where the next element starts)."""
    if at + 2 > len(octets) or octets[at] != kind:
        raise Unproved(f"DER: no element {kind:#x} at octet {at}")
    length, at = octets[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(octets[at : at + size], "big"), at + size
    if at + length > len(octets):
        raise Unproved("DER: longer than what is there")
    return octets[at : at + length], at + length
