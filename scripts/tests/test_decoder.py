"""The decoder against the golden vectors, and against every fault it promises to see."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import builder
from builder import control, in_udp, ip, ipv6, locator_list, option, payload, probe, report, tag, ulid_pair, validator, word
from shim6dec import identity, pcap, track, wire

A, B = ip("2001:db8:1::a"), ip("2001:db8:2::b")


def read(octets, source=A, destination=B):
    """(message, names of the rules broken, all faults) of one control header in a packet."""
    faults = []
    found = wire.find_shim6(ipv6(source, destination, octets), faults)
    message = wire.parse_control(found, faults)
    return message, [rule for rule, _ in faults], faults


class Golden(unittest.TestCase):
    """Octets that were computed by others from the RFC texts."""

    def good(self, text, *addresses):
        message, rules, faults = read(bytes.fromhex(text), *addresses)
        self.assertEqual(rules, [], faults)
        return message

    def test_payload_header(self):
        faults = []
        found = wire.find_shim6(ipv6(A, B, bytes.fromhex("0600923456789abc") + bytes(20)), faults)
        self.assertTrue(wire.is_payload(found))
        self.assertEqual(wire.parse_payload(found, faults), (0x123456789ABC, 6))
        self.assertEqual(faults, [])

    def test_i1(self):
        message = self.good("3b01010022f8123456789abcdeadbeef")
        self.assertEqual((message.type, message.tag, message.initiator_nonce), (1, 0x123456789ABC, 0xDEADBEEF))

    def test_i1_with_ulid_pair(self):
        message = self.good(
            "3b060100c738123456789abcdeadbeef000c00240000000020010db800010000000000000000000a"
            "20010db800020000000000000000000b"
        )
        self.assertEqual(message.ulid_pair, (A, B))

    def test_r1(self):
        message = self.good(
            "3b040200c6dd0000deadbeef0102030400020014000102030405060708090a0b0c0d0e0f10111213"
        )
        self.assertEqual(message.options[wire.VALIDATOR], bytes(range(20)))
        self.assertEqual(message.responder_nonce, 0x01020304)

    def test_r2(self):
        self.assertEqual(self.good("3b010400ff390a0b0c0d0e0fdeadbeef").tag, 0x0A0B0C0D0E0F)

    def test_r1bis(self):
        self.good("3b0405005e12123456789abc0102030400020014000102030405060708090a0b0c0d0e0f10111213")

    def test_i2bis_fixed_part_lacks_only_its_validator(self):
        message, rules, _ = read(
            bytes.fromhex("3b030600f5c80a0b0c0d0e0fdeadbeef01020304000000000000123456789abc")
        )
        self.assertEqual(rules, ["option-missing"])
        self.assertEqual((message.tag, message.packet_tag), (0x0A0B0C0D0E0F, 0x123456789ABC))

    def test_ua(self):
        self.good("3b014100e2f7123456789abcdeadbeef")

    def test_keepalive(self):
        self.good("3b0142007f95123456789abc00000000")

    def test_probe_exploring(self):
        message = self.good(
            "3b064300dd60123456789abc0140000020010db8000b0000000000000000000120010db8000a00000000000000000001"
            "1122334400000000",
            ip("2001:db8:b::1"),
            ip("2001:db8:a::1"),
        )
        self.assertEqual((message.state, len(message.sent), len(message.received)), (wire.EXPLORING, 1, 0))

    def test_probe_inbound_ok(self):
        message = self.good(
            "3b0b43009390123456789abc11800000"
            "20010db8000a0000000000000000000120010db8000b000000000000000000025566778800000000"
            "20010db8000b0000000000000000000220010db8000a0000000000000000000199aabbcc00000000",
            ip("2001:db8:a::1"),
            ip("2001:db8:b::2"),
        )
        self.assertEqual(message.state, wire.INBOUND_OK)
        self.assertEqual(message.received[0].nonce, 0x99AABBCC)

    def test_options(self):
        faults = []
        contents = bytes.fromhex("1122334402010100 00000000".replace(" ", "")) + A + B
        found = wire.parse_locators(contents, faults)
        self.assertEqual((found.generation, found.methods, found.locators), (0x11223344, [1, 1], [A, B]))
        generation, elements = wire.parse_preferences(bytes.fromhex("11223344010100"), faults)
        self.assertEqual((generation, elements), (0x11223344, [b"\1", b"\0"]))
        self.assertEqual(faults, [])

    def test_builder_agrees(self):
        self.assertEqual(locator_list(0x11223344, [A, B]).hex(), "0004002c112233440201010000000000" + (A + B).hex())
        self.assertEqual(option(3, bytes.fromhex("11223344010100")).hex()[:22], "0006000711223344010100")
        self.assertEqual(option(7, word(1)).hex(), "000e000400000001")
        self.assertEqual(option(10, bytes.fromhex("00000014")).hex(), "0014000400000014")
        self.assertEqual(control(1, tag(0x123456789ABC) + word(0xDEADBEEF)).hex(), "3b01010022f8123456789abcdeadbeef")


class Identity(unittest.TestCase):
    """The vectors of RFC 3972 appendix A and the derived HBA set."""

    KEY = bytes.fromhex(
        "304c300d06092a864886f70d0101010500033b0030380231009c2dcbea2421a85e1b7146b14935aa5b78b66d10e6ff714b"
        "d6ae70eff7840cb46127e78478e8f337af0ab0fb72b27ace0203010001"
    )
    EXTENSION = bytes.fromhex("0012001c00000000fc123456789a000120010db800aa000120010db8800b0001")
    SETS = {
        "a9858dc2c457438f8669a1bd87510396": [
            "fc12:3456:789a:1:49:6eb5:760d:4ecb",
            "2001:db8:aa:1:cd:5a5b:c233:eaa3",
            "2001:db8:800b:1:87c:990f:cc27:fc9c",
        ],
        "a9858dc2c457438f8669a1bd875254bd": [
            "fc12:3456:789a:1:30c8:38a9:b091:659e",
            "2001:db8:aa:1:30c1:ce43:606b:9e06",
            "2001:db8:800b:1:240b:470e:1c00:99bc",
        ],
    }

    def parameters(self, modifier, address):
        return identity.parse(bytes.fromhex(modifier) + ip(address)[:8] + b"\0" + self.KEY + self.EXTENSION)

    def test_every_address_verifies_with_every_pds_of_its_set(self):
        for modifier, addresses in self.SETS.items():
            for own in addresses:
                for other in addresses:
                    identity.verify_member(ip(other), self.parameters(modifier, own))

    def test_sets_do_not_mix(self):
        (first, addresses), (_, others) = self.SETS.items()
        for other in others:
            with self.assertRaises(identity.IdentityError):
                identity.verify_member(ip(other), self.parameters(first, addresses[0]))

    def test_prefix_outside_the_set(self):
        modifier, addresses = next(iter(self.SETS.items()))
        outside = ip("2001:db8:ffff:1::")[:8] + ip(addresses[0])[8:]
        with self.assertRaisesRegex(identity.IdentityError, "not in the set"):
            identity.verify_member(outside, self.parameters(modifier, addresses[0]))

    def test_only_the_five_free_bits_may_differ(self):
        modifier, addresses = next(iter(self.SETS.items()))
        parameters = self.parameters(modifier, addresses[0])
        accepted = []
        for bit in range(64):
            flipped = int.from_bytes(ip(addresses[0]), "big") ^ 1 << (63 - bit)
            try:
                identity.verify_member(flipped.to_bytes(16, "big"), parameters)
                accepted.append(bit)
            except identity.IdentityError:
                pass
        # Bits 6 and 7 are free; bits 0-2 raise Sec, which then asks for zeros in Hash2 or is undefined.
        self.assertEqual(accepted, [6, 7])

    def test_cga_of_rfc_3972(self):
        key = bytes.fromhex(
            "305c300d06092a864886f70d0101010500034b003048024100c2c2f137305454f10bd9cea36844b530e9211a4b262b16467c"
            "b7dfba1f595c0194f275be5a4d386f2c3c2382508773c7867f9b3b9e63a09c7bc48f7a54ebefaf0203010001"
        )
        address = ip("fe80::3c4a:5bf6:ffb4:ca6c")
        raw = bytes.fromhex("89a8a8b2e858d8b8f2633f44d2d4ce9b") + address[:8] + b"\0" + key
        identity.verify_ulid(address, identity.parse(raw))
        for at in (0, 20, 60):
            wrong = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
            with self.assertRaises(identity.IdentityError):
                identity.verify_address(address, wrong)

    def test_malformed_structures(self):
        good = bytes(24) + b"\0" + self.KEY + self.EXTENSION
        identity.parse(good)
        for wrong, why in [
            (good[:24] + b"\3" + good[25:], "collision count"),
            (good[:-1], "runs past"),
            (good + b"\0", "after the last"),
            (good + self.EXTENSION, "two Multi-Prefix"),
            (good[:30] + b"\0" + good[31:], "rsaEncryption|DER"),
            (good[:20], "too short"),
        ]:
            with self.assertRaisesRegex(identity.IdentityError, why):
                identity.parse(wrong)

    def test_signature(self):
        """Signed by OpenSSL, so that the reader is not judged by its own arithmetic."""
        with tempfile.TemporaryDirectory() as folder:
            key, message, signature = (os.path.join(folder, name) for name in ("key", "message", "signature"))
            openssl("genrsa", "-out", key, "1024")
            locators = [ip("2001:db8:9::1"), ip("2001:db8:9::2")]
            with open(message, "wb") as file:
                file.write(identity.SHIM6_TYPE_TAG + word(7) + b"".join(locators))
            openssl("dgst", "-sha1", "-sign", key, "-out", signature, message)
            public = openssl("rsa", "-in", key, "-pubout", "-outform", "DER")
            signed = Path(signature).read_bytes()
        parameters = identity.parse(bytes(25) + public)
        identity.verify_signature(signed, 7, locators, parameters)
        for arguments in [(signed, 8, locators), (signed, 7, locators[::-1]), (signed[:-1] + b"\0", 7, locators)]:
            with self.assertRaises(identity.IdentityError):
                identity.verify_signature(*arguments, parameters)


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


class Faults(unittest.TestCase):
    """One fault, one rule: what is wrong is named, and nothing else is."""

    TAG = tag(0x123456789ABC)

    def broken(self, octets, *rules):
        _, found, faults = read(octets)
        self.assertEqual(found, list(rules), faults)

    def i1(self, **how):
        return control(1, self.TAG + word(5), **how)

    def test_checksum(self):
        self.broken(self.i1()[:-1] + b"\0", "checksum")

    def test_next_header(self):
        self.broken(builder.checksummed(b"\6" + self.i1()[1:]), "next-header")

    def test_s_bit(self):
        self.broken(self.i1(octet3=1), "s-bit")

    def test_reserved(self):
        self.broken(self.i1(octet3=2), "reserved")
        self.broken(control(1, b"\x80" + self.TAG[1:] + word(5)), "reserved")
        self.broken(control(2, b"\0\1" + word(1) + word(2), validator()), "reserved")
        self.broken(control(3, self.TAG + word(1) + word(2) + word(1), validator()), "reserved")
        self.broken(control(66, self.TAG + word(1)), "reserved")
        self.broken(control(1, self.TAG + word(1), option(6, word(1) + A + B)), "reserved")
        self.broken(control(64, self.TAG + word(1), option(10, bytes.fromhex("00010014"))), "reserved")
        i2bis = self.TAG + word(1) + word(2) + bytes(4) + b"\0\0" + b"\x80" + self.TAG[1:]
        self.broken(control(6, i2bis, validator()), "reserved")

    def test_lengths(self):
        self.broken(self.i1()[:1] + b"\2" + self.i1()[2:], "length")
        self.broken(self.i1() + bytes(8), "trailing")
        self.broken(control(3, self.TAG + word(1)), "short")

    def test_too_big(self):
        big = control(2, b"\0\0" + word(1) + word(2), validator(bytes(1300)))
        self.broken(big, "too-big")

    def test_type(self):
        self.broken(control(7, self.TAG + word(1)), "type")

    def test_options(self):
        ur = self.TAG + word(1)
        self.broken(control(1, ur, validator()), "option-place")
        self.broken(control(1, ur, ulid_pair(A, B), ulid_pair(A, B)), "option-repeat")
        self.broken(control(1, ur, option(99, b"")), "option-type")
        self.broken(control(1, ur, option(7, word(1), critical=1)), "option-critical")
        self.broken(control(1, ur, option(7, word(1) + word(2))), "option-length")
        self.broken(control(1, ur, b"\0\x0e\0\x40" + word(1)), "option-length")
        self.broken(control(2, b"\0\0" + word(1) + word(2)), "option-missing")
        self.broken(control(2, b"\0\0" + word(1) + word(2), option(1, b"abc", filler=b"\1")), "padding")
        self.broken(control(64, ur, option(10, bytes(4))), "timeout")
        self.broken(control(5, ur, option(1, b"")), "validator")

    def test_flow_labels(self):
        def label(purpose, flags, number, nonce, name=b"P6FL"):
            return option(19526, name + word(purpose << 28 | flags << 20 | number) + word(nonce))

        keepalive, r2 = self.TAG + bytes(4), self.TAG + word(1)
        for good in (label(1, 0, 5, 77), label(2, 0, 0, 77), label(2, 1, 5, 77), option(30000, b"somebody else's")):
            self.broken(control(66, keepalive, good))
        self.broken(control(4, r2, label(0, 0, 5, 0)))
        for bad in (label(0, 0, 5, 0), label(1, 1, 5, 7), label(3, 0, 5, 7), label(1, 0, 5, 7, b"P6FM")):
            self.broken(control(66, keepalive, bad), "option-label")
        for bad in (label(1, 0, 5, 7), label(0, 0, 0, 0), label(0, 0, 5, 1)):
            self.broken(control(4, r2, bad), "option-label")
        self.broken(control(64, r2, label(0, 0, 5, 0)), "option-place")
        self.broken(control(66, keepalive, option(30000, b"", critical=1)), "option-type")

    def test_udp_options(self):
        def udp(purpose, flags, nonce, name=b"P6UD"):
            return option(21828, name + word(purpose << 28 | flags) + word(nonce))

        keepalive, r2 = self.TAG + bytes(4), self.TAG + word(1)
        for good in (udp(1, 0, 77), udp(2, 0, 77), udp(2, 1, 77)):
            self.broken(control(66, keepalive, good))
        self.broken(control(4, r2, udp(0, 0, 0)))
        for bad in (udp(0, 0, 0), udp(1, 1, 7), udp(2, 2, 7), udp(3, 0, 7), udp(1, 0, 7, b"P6UE")):
            self.broken(control(66, keepalive, bad), "option-udp")
        for bad in (udp(1, 0, 7), udp(0, 0, 7), udp(0, 1, 0)):
            self.broken(control(4, r2, bad), "option-udp")
        self.broken(control(64, r2, udp(0, 0, 0)), "option-place")

    def test_liveness_options(self):
        up = bytes([0x20, 0xC0, 3, 24]) + word(7) + word(9) + word(50_000) * 2 + word(0)

        def liveness(purpose, flags, packet=b"", name=b"P6BF"):
            return option(16966, name + word(purpose << 28 | flags) + packet)

        keepalive, r2 = tag(1) + bytes(4), tag(1) + word(2)
        self.broken(control(4, r2, liveness(0, 0)))
        for good in (up, up[:1] + b"\x40" + up[2:8] + word(0) + up[12:]):
            self.broken(control(66, keepalive, liveness(1, 1, good)))
        for bad in (up[:1] + b"\xc2" + up[2:], b"\x40" + up[1:], up[:2] + b"\0" + up[3:], up[:8] + word(0) + up[12:], up[:23]):
            self.broken(control(66, keepalive, liveness(1, 0, bad)), "option-bfd")
        for bad in (liveness(0, 0), liveness(2, 0), liveness(1, 2, up), liveness(1, 0, up, b"P6BE")):
            self.broken(control(66, keepalive, bad), "option-liveness")
        for bad in (liveness(1, 0, up), liveness(0, 1), liveness(0, 0, up)):
            self.broken(control(4, r2, bad), "option-liveness")
        self.broken(control(64, r2, liveness(0, 0)), "option-place")

    def test_udp(self):
        def found(packet, *rules):
            faults = []
            seen = wire.find_shim6(packet, faults)
            self.assertEqual([rule for rule, _ in faults], list(rules), faults)
            return seen

        plain = ipv6(A, B, self.i1())
        self.assertEqual(found(in_udp(plain)).shim6, found(plain).shim6)
        self.assertTrue(found(in_udp(plain, 5533, 65535)).in_udp)
        self.assertFalse(found(plain).in_udp)
        for ports in ((5533, 5533), (1024, 5533), (49153, 5534), (49153, 49154)):
            self.assertIsNone(found(in_udp(plain, *ports)))
        found(in_udp(plain, length=9), "udp-length")
        found(in_udp(plain, sum=0), "udp-checksum")
        found(in_udp(plain, sum=1), "udp-checksum")
        found(in_udp(ipv6(A, B, payload(5, data=bytes(21)))))
        found(in_udp(plain)[:60])  # of a capture that kept no more

    def test_locator_lists(self):
        ur = self.TAG + word(1)
        inside = word(1) + b"\2\1\1" + b"\0\0\0\0\1" + A + B
        self.broken(control(64, ur, option(2, inside)), "padding")
        self.broken(control(64, ur, option(2, inside[:-8])), "locator-list")
        self.broken(control(64, ur, locator_list(1, [A, A])), "locator-list")
        self.broken(control(64, ur, locator_list(1, [A, ip("fe80::1")])), "locator-list")
        self.broken(control(64, ur, locator_list(1, [A, ip("ff02::1")])), "locator-list")
        self.broken(control(64, ur, locator_list(1, [A, B], [1, 3])), "method")
        self.broken(control(64, ur, locator_list(1, [A, B], [1, 2])), "signature-missing")
        self.broken(control(64, ur, locator_list(1, [A, B]), option(5, b"sig")), "signature-idle")
        self.broken(control(4, ur, locator_list(1, [A, B])), "pds-missing")

    def test_preferences(self):
        ur = self.TAG + word(1)
        self.broken(control(64, ur, locator_list(1, [A, B]), option(3, word(2) + b"\1\0\0")), "preferences")
        self.broken(control(64, ur, locator_list(1, [A, B]), option(3, word(1) + b"\1\0")), "preferences")
        self.broken(control(64, ur, option(3, word(1) + b"\2\0")), "preferences")
        self.broken(control(64, ur, option(3, word(1) + b"\0")), "preferences")
        self.broken(control(64, ur, option(3, word(1) + b"\1\4")), "reserved")

    def test_probes(self):
        right = report(A, B, 1)
        self.broken(probe(5, 0, [right]))
        self.broken(probe(5, 3, [right]), "probe-state")
        self.broken(probe(5, 0, [report(A, A, 1)]), "probe-first")
        self.broken(probe(5, 0, [right, right]), "probe-repeat")
        self.broken(probe(5, 0, [], [right]), "probe-count")
        self.broken(control(67, tag(5) + b"\x21\0\0\0" + right + right), "probe-count")
        self.broken(control(67, tag(5) + b"\1\0\0\1" + right), "reserved")

    def test_errors(self):
        quoted = ipv6(A, B, control(7, self.TAG + word(1)))
        self.broken(control(68, b"\0\x2a" + quoted))
        self.broken(control(68, b"\0\x2a" + quoted, octet3=10), "error-code")
        self.broken(control(68, b"\xff\0" + quoted), "error-pointer")
        self.broken(control(68, b"\0\0" + ipv6(A, B, bytes(8), 6)), "error-quote")
        self.broken(control(68, b"\0\0" + ipv6(A, B, control(68, b"\0\0" + bytes(8)))), "error-quote")

    def test_places_and_addresses(self):
        def rules(packet):
            faults = []
            wire.find_shim6(packet, faults)
            return [rule for rule, _ in faults]

        routing, destination = bytes([140, 0, 4, 0, 0, 0, 0, 0]), bytes([140, 0, 1, 4, 0, 0, 0, 0])
        self.assertEqual(rules(ipv6(A, B, routing + self.i1(), 43)), [])
        self.assertEqual(rules(ipv6(A, B, destination + self.i1(), 60)), ["order"])
        self.assertEqual(rules(ipv6(A, B, bytes([43]) + destination[1:] + routing + self.i1(), 60)), [])
        self.assertEqual(rules(ipv6(A, B, bytes([60]) + routing[1:] + destination + self.i1(), 43)), ["order"])
        self.assertEqual(rules(ipv6(A, B, bytes([140, 0, 0, 1, 0, 0, 0, 9]) + self.i1(), 44)), ["order"])
        self.assertEqual(rules(ipv6(ip("fe80::1"), B, self.i1())), ["address"])
        self.assertEqual(rules(ipv6(A, ip("ff02::1"), self.i1())), ["address"])

    def test_payload_headers(self):
        def rules(octets):
            faults = []
            wire.parse_payload(wire.find_shim6(ipv6(A, B, octets), faults), faults)
            return [rule for rule, _ in faults]

        self.assertEqual(rules(payload(7)), [])
        self.assertEqual(rules(payload(7)[:1] + b"\1" + payload(7)[2:]), ["payload-length"])
        self.assertEqual(rules(payload(7, 140)), ["payload-next"])
        self.assertEqual(rules(payload(7, data=b"")), ["payload-empty"])


class Session(unittest.TestCase):
    """A whole life of a context, then the same with one lie in it."""

    TA, TB = 0x0A0000000001, 0x0B0000000002

    def setUp(self):
        prefixes_a = ["fc00:a:0:1::", "2001:db8:a1:1::", "2001:db8:a2:1::"]
        prefixes_b = ["fc00:b:0:1::", "2001:db8:b1:1::", "2001:db8:b2:1::"]
        (self.ua, *self.la), (self.pa, *_) = builder.hba_set(prefixes_a, 1)
        (self.ub, *self.lb), (self.pb, *_) = builder.hba_set(prefixes_b, 2)

    def there(self, octets):
        return ipv6(self.la[0], self.lb[0], octets)

    def back(self, octets):
        return ipv6(self.lb[0], self.la[0], octets)

    def i1(self):
        return self.there(control(1, tag(self.TA) + word(100), ulid_pair(self.ua, self.ub)))

    def r1(self):
        return self.back(control(2, b"\0\0" + word(100) + word(200), validator()))

    def i2(self, rv=None, receiver_tag=None, listed=None, pds=None, pair=True, offers=()):
        return self.there(control(
            3,
            tag(receiver_tag or self.TA) + word(101) + word(200) + bytes(4),
            rv or validator(),
            *([ulid_pair(self.ua, self.ub)] if pair else []),
            locator_list(1, listed or self.la),
            option(4, pds or self.pa),
            option(10, bytes.fromhex("00000003")),
            *offers,
        ))

    def r2(self, nonce=101, listed=None, offers=()):
        return self.back(control(
            4, tag(self.TB) + word(nonce), locator_list(9, listed or self.lb), option(4, self.pb), *offers
        ))

    def established(self):
        return [self.i1(), self.r1(), self.i2(), self.r2(), self.there(payload(self.TB)), self.back(payload(self.TA))]

    def judge(self, packets, **how):
        tracker = track.Tracker(ulids=track.ipaddress.IPv6Network("fc00::/7"), **how)
        for number, packet in enumerate(packets, start=1):
            tracker.frame(pcap.Frame("test", number, number / 1000, packet, True))
        tracker.finish()
        return tracker

    def broken(self, packets, *rules):
        tracker = self.judge(packets)
        self.assertEqual([found.rule for found in tracker.violations], list(rules), tracker.violations)

    def test_establishment_and_payload(self):
        tracker = self.judge(self.established())
        self.assertEqual(tracker.violations, [])
        summary = tracker.summary()
        self.assertEqual(summary["handshakes"][0]["ms"], 3.0)
        self.assertEqual([end["payload_packets"] for end in summary["contexts"]], [1, 1])
        self.assertEqual(len(summary["moves"]), 2)

    def test_seen_at_two_ports(self):
        twice = [packet for packet in self.established() for _ in range(2)]
        tracker = self.judge(twice)
        self.assertEqual(tracker.violations, [])
        self.assertEqual(len(tracker.handshakes), 1)

    def test_exploration(self):
        first, second = report(self.la[0], self.lb[0], 1), report(self.la[1], self.lb[1], 2)
        answer = report(self.lb[1], self.la[1], 3)
        self.broken(self.established() + [
            self.there(probe(self.TB, 1, [first])),
            ipv6(self.la[1], self.lb[1], probe(self.TB, 1, [second, first])),
            ipv6(self.lb[1], self.la[1], probe(self.TA, 2, [answer], [second])),
            ipv6(self.la[1], self.lb[1], probe(self.TB, 0, [report(self.la[1], self.lb[1], 4), second, first], [answer])),
            ipv6(self.la[1], self.lb[1], payload(self.TB)),
        ])

    def test_invented_probe_reports(self):
        first, never = report(self.la[0], self.lb[0], 1), report(self.lb[0], self.la[0], 77)
        self.broken(self.established() + [self.there(probe(self.TB, 2, [first], [never]))], "probe-received")
        earlier = report(self.la[1], self.lb[0], 78)
        self.broken(self.established() + [self.there(probe(self.TB, 1, [first, earlier]))], "probe-sent")

    def test_probes_of_one_moment_may_be_seen_in_another_order(self):
        first, earlier = report(self.la[0], self.lb[0], 1), report(self.la[1], self.lb[1], 2)
        later = ipv6(self.la[1], self.lb[1], probe(self.TB, 1, [earlier]))
        probes = [self.there(probe(self.TB, 1, [first, earlier]))]
        self.broken(self.established() + probes + [later])
        self.broken(self.established() + probes + [self.there(payload(self.TB))] * 6 + [later], "probe-sent")

    def recovery(self, packet_tag=None, new_tag=0x0B0000000003):
        lost = self.TB if packet_tag is None else packet_tag
        return [
            self.there(payload(self.TB)),
            self.back(control(5, tag(self.TB) + word(300), validator(b"again"))),
            self.there(control(
                6,
                tag(self.TA) + word(102) + word(300) + bytes(6) + tag(lost),
                validator(b"again"),
                ulid_pair(self.ua, self.ub),
                locator_list(1, self.la),
                option(4, self.pa),
            )),
            self.back(control(4, tag(new_tag) + word(102), locator_list(10, self.lb), option(4, self.pb))),
            self.there(payload(new_tag)),
        ]

    def test_recovery(self):
        tracker = self.judge(self.established() + self.recovery())
        self.assertEqual(tracker.violations, [])
        self.assertEqual([made["kind"] for made in tracker.handshakes], ["establishment", "recovery"])

    def test_recovery_with_another_packet_tag(self):
        self.broken(self.established() + self.recovery(packet_tag=7), "i2bis-tag")

    def test_update(self):
        request = self.there(control(64, tag(self.TB) + word(55), locator_list(2, self.la[:1])))
        self.broken(self.established() + [request, self.back(control(65, tag(self.TA) + word(55)))])
        self.broken(self.established() + [request, self.back(control(65, tag(self.TA) + word(56)))], "ua-unasked")
        # The standard lets the peer choose the pair over which it acknowledges.
        elsewhere = ipv6(self.lb[1], self.la[0], control(65, tag(self.TA) + word(55)))
        self.broken(self.established() + [request, elsewhere])
        # A list in an Update Request replaces the one before: its other locator is no longer good.
        self.broken(self.established() + [request, ipv6(self.la[1], self.lb[0], payload(self.TB))], "locator")
        wrong = self.there(control(64, tag(self.TB) + word(55), option(3, word(3) + b"\1\0\0")))
        self.broken(self.established() + [wrong], "preferences")

    def test_lies(self):
        i1, r1, i2, r2, out, back = self.established()
        self.broken([r1], "r1-unasked")
        self.broken([i1, r1, self.i2(rv=validator(b"forged"))], "validator")
        self.broken([i1, self.i2()], "validator")
        self.broken([i1, r1, self.i2(receiver_tag=5)], "i2-tag")
        self.broken([i1, r1, i2, self.r2(nonce=999)], "r2-unasked")
        self.broken([i1, r1, i2, r2, self.there(payload(0x77))], "tag")
        self.broken([i1, r1, i2, r2, ipv6(ip("2001:db8:dead::1"), self.lb[0], payload(self.TB))], "locator")
        self.broken([i1, r1, i2, r2, self.back(control(5, tag(9) + word(1), validator()))], "r1bis-unasked")

    def test_ulid_pair_left_out(self):
        self.broken([self.there(control(1, tag(self.TA) + word(100)))], "ulid-pair")
        self.broken([self.i1(), self.r1(), self.i2(pair=False)], "ulid-pair", "i2-tag")

    def test_proofs(self):
        begin = [self.i1(), self.r1()]
        self.broken(begin + [self.i2(listed=[self.la[0], ip("2001:db8:a2:1::666")])], "proof")
        self.broken(begin + [self.i2(listed=[self.la[0], self.lb[1]])], "proof")
        self.broken(begin + [self.i2(listed=[self.la[1]])], "list-source")
        self.broken(begin + [self.i2(pds=self.pb)], "proof", "proof", "proof")
        self.broken(begin + [self.i2(pds=self.pa[:-1])], "pds", "pds-missing")

    def test_tag_for_two_pairs(self):
        (other, *locators), (pds, *_) = builder.hba_set(["fc00:a:0:1::", "2001:db8:a1:1::", "2001:db8:a2:1::"], 3)
        i1 = ipv6(locators[0], self.lb[0], control(1, tag(self.TA) + word(500), ulid_pair(other, self.ub)))
        r1 = ipv6(self.lb[0], locators[0], control(2, b"\0\0" + word(500) + word(600), validator()))
        i2 = ipv6(locators[0], self.lb[0], control(
            3, tag(self.TA) + word(500) + word(600) + bytes(4), validator(), ulid_pair(other, self.ub),
            locator_list(1, locators), option(4, pds),
        ))
        self.broken(self.established() + [i1, r1, i2], "tag-reuse")

    def test_liveness_only_for_who_offered_it(self):
        up = bytes([0x20, 0xC0, 3, 24]) + word(7) + word(9) + word(50_000) * 2 + word(0)
        offer, said = [option(16966, b"P6BF" + word(0))], option(16966, b"P6BF" + word(1 << 28) + up)
        i1, r1, *_ = self.established()
        out = self.there(control(66, tag(self.TB) + bytes(4), said))
        self.broken([i1, r1, self.i2(offers=offer), self.r2(offers=offer), out])
        self.broken([*self.established(), out], "liveness-unasked")

    def test_udp_only_for_who_offered_it(self):
        offer = [option(21828, b"P6UD" + bytes(8))]
        i1, r1, _, _, out, back = self.established()
        begin = [i1, r1, self.i2(offers=offer), self.r2(offers=offer)]
        self.broken([*begin, in_udp(out), in_udp(back), in_udp(self.there(control(66, tag(self.TB) + bytes(4))))])
        self.assertEqual(self.judge([in_udp(packet) for packet in begin]).messages["in UDP"], 4)
        self.broken([i1, r1, self.i2(offers=offer), self.r2(), in_udp(out)], "udp-unasked")
        self.broken([*self.established(), in_udp(back)], "udp-unasked")

    def test_midstream_forgives_what_it_cannot_know(self):
        _, _, _, _, out, back = self.established()
        self.assertEqual(self.judge([out, back], midstream=True).violations, [])
        wrong = self.there(control(1, tag(1) + word(1), octet3=1))
        self.assertEqual(self.judge([wrong], midstream=True).counts, {"s-bit": 1, "ulid-pair": 1})


class Files(unittest.TestCase):
    """The command line, on files."""

    def run_on(self, *contents):
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, data in enumerate(contents):
                paths.append(os.path.join(folder, f"{number}.pcap"))
                Path(paths[-1]).write_bytes(data)
            script = Path(__file__).resolve().parent.parent / "shim6_decode.py"
            return subprocess.run([sys.executable, script, *paths], capture_output=True, text=True)

    def test_good_and_bad(self):
        session = Session()
        session.setUp()
        packets = session.established()
        good = builder.pcap([(number, packet) for number, packet in enumerate(packets)])
        done = self.run_on(good)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("no violations", done.stdout)
        # Read together in time order, wherever the frames were captured.
        odd = builder.pcap([(n, p) for n, p in enumerate(packets) if n % 2])
        even = builder.pcap([(n, p) for n, p in enumerate(packets) if n % 2 == 0])
        self.assertEqual(self.run_on(odd, even).returncode, 0)
        bad = self.run_on(builder.pcap([(0, packets[1])]))
        self.assertEqual(bad.returncode, 1)
        self.assertIn("[r1-unasked]", bad.stdout)

    def test_pcapng(self):
        session = Session()
        session.setUp()
        packets = session.established()
        nanoseconds = bytes.fromhex("0900010009000000") + bytes(4)

        def block(kind, body):
            body += bytes(-len(body) % 4)
            length = (len(body) + 12).to_bytes(4, "little")
            return kind.to_bytes(4, "little") + length + body + length

        data = block(0x0A0D0D0A, bytes.fromhex("4d3c2b1a01000000") + b"\xff" * 8)
        data += block(1, bytes.fromhex("0100000000000000") + nanoseconds)
        for number, packet in enumerate(packets):
            frame = bytes(12) + b"\x86\xdd" + packet
            size = len(frame).to_bytes(4, "little")
            data += block(6, bytes(8) + (number * 10**8).to_bytes(4, "little") + size + size + frame)
        with tempfile.NamedTemporaryFile(suffix=".pcapng") as file:
            file.write(data)
            file.flush()
            frames = list(pcap.read(file.name))
        self.assertEqual([frame.packet for frame in frames], packets)
        self.assertEqual([round(frame.time, 6) for frame in frames[:3]], [0.0, 0.1, 0.2])

    def test_no_capture(self):
        self.assertEqual(self.run_on(b"hello world").returncode, 2)
        self.assertEqual(self.run_on(builder.pcap([(0, bytes(60))])[:-3]).returncode, 2)


if __name__ == "__main__":
    unittest.main()
