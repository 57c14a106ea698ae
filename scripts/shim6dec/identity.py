"""CGA (RFC 3972), its Multi-Prefix extension and HBA sets (RFC 5535), and the Shim6 CGA signature, by hashlib alone."""

import hashlib
import struct
from dataclasses import dataclass

# IID bits that the hash decides: all but Sec (0-2), "u" (6) and "g" (7).
MASK1 = 0x1CFFFFFFFFFFFFFF
MULTI_PREFIX = 0x0012
SHIM6_TYPE_TAG = bytes.fromhex("4A3056624858574B3655416F506A6D48")
RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")
SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")


class IdentityError(Exception):
    """Why an address, a parameter structure or a signature does not hold."""


@dataclass
class Parameters:
    """A CGA Parameters data structure, taken apart."""

    raw: bytes
    modifier: bytes
    prefix: bytes
    collision_count: int
    key: bytes  # DER SubjectPublicKeyInfo
    prefixes: list  # of the Multi-Prefix extension, in order; empty when there is none
    real_key: bool  # the extension's P bit; True without the extension
    reserved: int  # the extension's reserved bits

    @property
    def multi_prefix(self):
        return bool(self.prefixes)


def parse(raw):
    """Takes a PDS apart; raises when it is not exactly one."""
    if len(raw) < 25:
        raise IdentityError(f"PDS of {len(raw)} octets is too short")
    if raw[24] > 2:
        raise IdentityError(f"collision count {raw[24]}")
    key, at = der_element(raw, 25, 0x30)
    check_key(key)
    prefixes, real_key, reserved = [], True, 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise IdentityError("octets after the last extension")
        kind, length = struct.unpack_from(">HH", raw, at)
        body = raw[at + 4 : at + 4 + length]
        if len(body) != length:
            raise IdentityError("an extension runs past the PDS")
        if kind == MULTI_PREFIX:
            if prefixes:
                raise IdentityError("two Multi-Prefix extensions")
            if length < 12 or (length - 4) % 8:
                raise IdentityError(f"Multi-Prefix extension of length {length}")
            word = struct.unpack_from(">I", body)[0]
            real_key, reserved = bool(word >> 31), word & 0x7FFFFFFF
            prefixes = [body[i : i + 8] for i in range(4, length, 8)]
        at += 4 + length
    return Parameters(raw, raw[:16], raw[16:24], raw[24], key, prefixes, real_key, reserved)


def der_element(raw, at, tag):
    """The DER element with this tag at `at`, header included, and the offset behind it."""
    if at + 2 > len(raw) or raw[at] != tag:
        raise IdentityError(f"DER tag {tag:#04x} expected at octet {at}")
    length, header = raw[at + 1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 2 or at + 2 + count > len(raw):
            raise IdentityError("DER length not supported")
        length, header = int.from_bytes(raw[at + 2 : at + 2 + count], "big"), 2 + count
        if length < 0x80 or (count == 2 and length < 0x100):
            raise IdentityError("DER length is not minimal")
    end = at + header + length
    if end > len(raw):
        raise IdentityError("DER element runs past the PDS")
    return raw[at:end], end


def content(element):
    """What is inside a DER element."""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def check_key(key):
    """rsaEncryption with NULL parameters and one RSAPublicKey; returns (modulus, exponent)."""
    inner = content(key)
    algorithm, at = der_element(inner, 0, 0x30)
    if content(algorithm) != RSA_ENCRYPTION + b"\x05\x00":
        raise IdentityError("the key's algorithm is not rsaEncryption")
    bits, end = der_element(inner, at, 0x03)
    if end != len(inner):
        raise IdentityError("octets after the key")
    if content(bits)[:1] != b"\0":
        raise IdentityError("unused bits in the key")
    sequence, end = der_element(content(bits), 1, 0x30)
    if end != len(content(bits)):
        raise IdentityError("octets after the RSA key")
    modulus, at = der_element(content(sequence), 0, 0x02)
    exponent, at = der_element(content(sequence), at, 0x02)
    if at != len(content(sequence)):
        raise IdentityError("octets after the RSA exponent")
    return int.from_bytes(content(modulus), "big"), int.from_bytes(content(exponent), "big")


def verify_address(address, raw):
    """RFC 3972 section 5: the address belongs to this very PDS. Raises when it does not."""
    if raw[16:24] != address[:8]:
        raise IdentityError("the prefix is not the PDS's")
    hash1 = int.from_bytes(hashlib.sha1(raw).digest()[:8], "big")
    iid = int.from_bytes(address[8:], "big")
    if hash1 & MASK1 != iid & MASK1:
        raise IdentityError("Hash1 does not match the interface identifier")
    sec = iid >> 61
    if sec > 2:
        raise IdentityError(f"Sec {sec} has no meaning")
    hash2 = hashlib.sha1(raw[:16] + bytes(9) + raw[25:]).digest()[:14]
    if any(hash2[: 2 * sec]):
        raise IdentityError(f"Hash2 does not begin with {16 * sec} zero bits")


def verify_member(address, parameters):
    """RFC 5535 section 7.2: the address is in the HBA set of these parameters. Raises when it is not."""
    if not parameters.multi_prefix:
        raise IdentityError("the PDS has no Multi-Prefix extension")
    if address[:8] not in parameters.prefixes:
        raise IdentityError("the prefix is not in the set")
    verify_address(address, parameters.raw[:16] + address[:8] + parameters.raw[24:])


def verify_ulid(address, parameters):
    """A PDS vouches for a ULID as its own CGA, or as a member of its HBA set."""
    if parameters.multi_prefix:
        verify_member(address, parameters)
    else:
        verify_address(address, parameters.raw)


def verify_signature(signature, generation, locators, parameters):
    """RFC 5533 section 5.15.5: RSASSA-PKCS1-v1_5 with SHA-1 over type tag, generation and the CGA locators."""
    if parameters.multi_prefix and not parameters.real_key:
        raise IdentityError("a signature, but the PDS says it has no real key")
    modulus, exponent = check_key(parameters.key)
    if modulus.bit_length() < 1024:
        raise IdentityError(f"key of {modulus.bit_length()} bits")
    size = (modulus.bit_length() + 7) // 8
    if len(signature) != size:
        raise IdentityError(f"signature of {len(signature)} octets, key of {size}")
    digest = hashlib.sha1(SHIM6_TYPE_TAG + struct.pack(">I", generation) + b"".join(locators)).digest()
    info = SHA1_DIGEST_INFO + digest
    wanted = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    if pow(int.from_bytes(signature, "big"), exponent, modulus).to_bytes(size, "big") != wanted:
        raise IdentityError("the signature does not verify")
