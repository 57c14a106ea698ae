//! Octets: what is read, and what is not.

use proptest::prelude::*;

use super::*;
use crate::dhcp::message::{ADDRESSES_MAX, IAS_MAX, Request};
use crate::dhcp::options::{self, PolicyRow, sanitised};

#[test]
fn a_request_has_the_octets_of_the_rfc() {
    #[rustfmt::skip]
    let octets = [
        3, 0xab, 0xcd, 0xef,
        0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 5,
        0, 2, 0, 4, 0, 2, 0, 9,
        0, 6, 0, 4, 0, 23, 0, 24,
        0, 8, 0, 2, 0, 0,
        0, 3, 0, 40, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 5, 0, 24, 0xfc, 0, 0, 0xa, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let request = Request::parse(&octets).unwrap();
    let ia = message::Ia { kind: message::IaKind::Na, iaid: 9, addresses: vec![address("fc00:a:0:1::7")] };
    let expected = Request {
        kind: Kind::Request,
        transaction: [0xab, 0xcd, 0xef],
        client: Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 5]),
        server: Duid::new(&[0, 2, 0, 9]),
        ias: vec![ia],
        wants: vec![23, 24],
        rapid_commit: false,
        name: None,
    };
    assert_eq!(request, expected);
    for length in 0..octets.len() {
        // Cut anywhere but between options it is no message; between them something may be missing.
        assert!(Request::parse(&octets[..length]).is_err() || [26, 34, 40].contains(&length), "{length}");
    }
}

// RFC 7078 §3: flags, then a table row option for each row, whose prefix ends with the octet that holds its last bit.
#[test]
fn the_policy_table_has_the_octets_of_the_rfc() {
    let row =
        |prefix: &str, length, precedence, label| PolicyRow { prefix: address(prefix), length, precedence, label };
    let rows = [row("fc00::", 7, 45, 14), row("::", 0, 40, 1), row("2001:db8:8000::", 33, 1, 255)];
    let mut out = message::Writer::message(7, [1, 2, 3]);
    options::put_policy(&mut out, 3, &rows);
    #[rustfmt::skip]
    let expected = [
        7, 1, 2, 3,
        0, 84, 0, 28, 3,
            0, 85, 0, 4, 14, 45, 7, 0xfc,
            0, 85, 0, 3, 1, 40, 0,
            0, 85, 0, 8, 255, 1, 33, 0x20, 0x01, 0x0d, 0xb8, 0x80,
    ];
    assert_eq!(out.finish(), expected);
    // As long as it can get it leaves room for everything else in a datagram.
    let said: Vec<_> = (0..16).map(|at| row("2001:db8::ffff", 128 - at, 1, 1)).collect();
    let blocks: Vec<_> = (0..9).map(|at| (address("5f00::"), 64 - at)).collect();
    let rows = options::policy_with(&said, &blocks);
    let mut out = message::Writer::message(7, [1, 2, 3]);
    options::put_policy(&mut out, 3, &rows);
    assert_eq!(rows.len(), 16 + 9 + 9);
    assert!(out.finish().len() < 700);
}

#[test]
fn bounds_hold() {
    let too_many = (0..=IAS_MAX as u32).fold(say(Kind::Solicit, 1), |say, iaid| say.na(iaid, &[])).done();
    assert_eq!(Request::parse(&too_many), Err(Malformed::TooMany));
    let addresses = vec![address("::1"); ADDRESSES_MAX + 1];
    assert_eq!(Request::parse(&say(Kind::Solicit, 1).na(1, &addresses).done()), Err(Malformed::TooMany));
    let twice = say(Kind::Solicit, 1).na(1, &[]).na(1, &[]).done();
    assert_eq!(Request::parse(&twice), Err(Malformed::Duplicate));
    let two_clients = say(Kind::Solicit, 1).option(code::CLIENT_ID, duid(2).octets()).done();
    assert_eq!(Request::parse(&two_clients), Err(Malformed::Duplicate));
    for length in [0, 2, 131] {
        let message = [&[1, 0, 0, 0, 0, 1, 0, length][..], &vec![0; length.into()]].concat();
        assert_eq!(Request::parse(&message), Err(Malformed::Option), "{length}");
    }
    assert_eq!(Request::parse(&vec![1; 1501]), Err(Malformed::Length));
    assert_eq!(Request::parse(&[2, 0, 0, 0]), Err(Malformed::Type));
    let name = |data: &[u8]| Request::parse(&say(Kind::Solicit, 1).option(code::CLIENT_FQDN, data).done());
    assert_eq!(name(&[]), Err(Malformed::Option));
    assert_eq!(name(&[0, 5, b'a']), Err(Malformed::Option));
    assert_eq!(name(&[0, 0xc0, 1]), Err(Malformed::Option), "no compression");
    assert!(name(&[0]).is_ok_and(|request| request.name.unwrap().label.is_empty()));
}

#[test]
fn duids_are_written_as_they_are_read() {
    let text = "000100011c39cf88080027fe8f95";
    let duid: Duid = text.parse().unwrap();
    assert_eq!(duid.to_string(), text);
    assert_eq!("0:1:0:1:1c:39:cf:88:08:00:27:fe:8f:95".parse(), Ok(duid));
    for wrong in ["", "00", "0001", "00:", "0g:01:02", "000", "+1:02:03", "00 01 02"] {
        assert!(wrong.parse::<Duid>().is_err(), "{wrong}");
    }
}

#[test]
fn names_are_those_of_hosts() {
    assert_eq!(sanitised(b"A_b.c"), Some("a-b-c".into()));
    assert_eq!(sanitised(b"---"), None);
    assert_eq!(sanitised(&[b'x'; 99]).unwrap().len(), 63);
    assert_eq!(options::encode_name("a..b"), None);
    assert_eq!(options::encode_name("a.b."), Some(b"\x01a\x01b\0".to_vec()));
}

proptest! {
    #[test]
    fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200), kind in 1u8..14, repair in any::<bool>()) {
        let mut bench = Bench::new(config());
        let payload = match repair {
            // Something that begins well.
            true => [say(Kind::ALL[usize::from(kind) % 8], 1).done(), octets].concat(),
            false => [&[kind][..], &octets].concat(),
        };
        bench.receive(address("fe80::1"), &payload);
        bench.written();
    }

    #[test]
    fn a_message_with_a_wrong_octet_harms_nobody(at in 0usize..100, to in any::<u8>()) {
        let mut bench = Bench::new(config());
        let given = bench.lease(1);
        let mut message = say(Kind::Renew, 2).ours().na(1, &[given]).done();
        let length = message.len();
        message[at % length] = to;
        bench.receive(address("fe80::9"), &message);
        bench.written();
        let lease = bench.server.book().get(&client(1)).cloned();
        // A message that by chance is the first client's own Release is no accident but its octets.
        prop_assert!(lease.is_some_and(|lease| lease.identity.ulid == given));
    }
}
