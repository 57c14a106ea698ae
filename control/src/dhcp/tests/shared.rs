//! Two servers of one link with one store, under one name.

use super::*;

/// Everything one of them writes is written, and the other hears of it.
fn share(from: &mut Bench, to: &mut Bench) -> (Vec<Output>, Vec<Output>) {
    let (mut done, mut heard) = (Vec::new(), Vec::new());
    for output in std::mem::take(&mut from.out) {
        match output {
            Output::Write { ticket, changes } => {
                changes.into_iter().for_each(|change| to.server.take_in(change, &mut heard));
                from.server.persisted(from.now, ticket, true, &mut done);
            }
            other => done.push(other),
        }
    }
    from.server.book().selfcheck();
    to.server.book().selfcheck();
    (done, heard)
}

fn two() -> [Bench; 2] {
    let mut other = Bench::new(config());
    other.made = 5000;
    other.server.discard_stock();
    other.stock(32);
    [Bench::new(config()), other]
}

fn bind(number: u32, one: &mut Bench, two: &mut Bench) -> Ipv6Addr {
    let offer = one.ask(&say(Kind::Solicit, number).na(1, &[]).done()).unwrap();
    let offered = offer.ias[0].addresses[0].0;
    one.receive(address("fe80::5"), &say(Kind::Request, number).ours().na(1, &[offered]).done());
    let (done, heard) = share(one, two);
    assert!(answer_in(&done).is_some());
    assert!(matches!(&heard[..], [Output::Serve(lease)] if lease.identity.ulid == offered), "{heard:?}");
    offered
}

#[test]
fn what_one_gave_the_other_serves_extends_and_ends() {
    let [mut one, mut two] = two();
    let given = bind(1, &mut one, &mut two);
    assert_eq!(two.server.book().stored(), one.server.book().stored());
    two.pass(600);
    one.pass(600);
    two.receive(address("fe80::5"), &say(Kind::Renew, 1).ours().na(1, &[given]).done());
    let (done, heard) = share(&mut two, &mut one);
    assert_eq!(answer_in(&done).unwrap().ias[0].addresses, [(given, 1000, 2000)]);
    assert!(matches!(&heard[..], [Output::Serve(_)]), "{heard:?}");
    // Its first end does not end it.
    one.pass(1500);
    assert!(one.out.is_empty(), "{:?}", one.out);
    one.receive(address("fe80::5"), &say(Kind::Release, 1).ours().na(1, &[given]).done());
    let (_, heard) = share(&mut one, &mut two);
    assert_eq!(heard, [Output::Withdraw(given)]);
    // And it is the client's own when it comes back, whom it asks.
    assert_eq!(two.lease(1), given);
}

#[test]
fn a_declined_address_is_quarantined_by_both() {
    let [mut one, mut two] = two();
    let given = bind(1, &mut one, &mut two);
    two.receive(address("fe80::5"), &say(Kind::Decline, 1).ours().na(1, &[given]).done());
    let (_, heard) = share(&mut two, &mut one);
    assert_eq!(heard, [Output::Withdraw(given)]);
    assert!(one.server.book().is_taken(&identity(u64::try_from(given.to_bits() & 0xffff).unwrap())));
    assert_eq!(one.server.book().stored(), two.server.book().stored());
}

#[test]
fn of_two_addresses_for_one_client_the_one_that_is_told_of_last_stands() {
    let [mut one, mut two] = two();
    let (lost, stands) = (one.lease(1), two.lease(1));
    assert_ne!(lost, stands);
    let lease = two.server.book().get(&client(1)).cloned().unwrap();
    let mut out = Vec::new();
    one.server.take_in(Change::Put(lease.clone()), &mut out);
    one.server.book().selfcheck();
    assert_eq!(out, [Output::Withdraw(lost), Output::Serve(lease.clone())]);
    // Said again it is nothing new.
    let mut out = Vec::new();
    one.server.take_in(Change::Put(lease), &mut out);
    assert_eq!(out, []);
    // The client hears at its next word that what it has is over.
    let answer = one.ask(&say(Kind::Renew, 1).ours().na(1, &[lost]).done()).unwrap();
    assert_eq!(answer.ias[0].addresses, [(stands, 1000, 2000), (lost, 0, 0)]);
}

#[test]
fn alone_a_client_gets_what_it_was_offered_here_and_names_and_nothing_else() {
    let [mut one, mut two] = two();
    let known = bind(7, &mut one, &mut two);
    one.server.set_alone(true);
    two.server.set_alone(true);
    // Both hear everything.
    let offer = |bench: &mut Bench| bench.ask(&say(Kind::Solicit, 1).rapid().na(1, &[]).done()).unwrap();
    let (first, second) = (offer(&mut one), offer(&mut two));
    assert_eq!((first.kind, second.kind), (message::ADVERTISE, message::ADVERTISE), "no rapid commit");
    let wanted = first.ias[0].addresses[0].0;
    let request = say(Kind::Request, 1).ours().na(1, &[wanted]).done();
    assert_eq!(two.receive(address("fe80::5"), &request), Verdict::Alone);
    assert_eq!(one.ask(&request).unwrap().ias[0].addresses[0].0, wanted);
    // Nor one that names nothing, and nothing it says makes the other give it a second one.
    for kind in [Kind::Request, Kind::Renew, Kind::Rebind] {
        let message = if kind == Kind::Rebind { say(kind, 1) } else { say(kind, 1).ours() };
        assert_eq!(two.receive(address("fe80::5"), &message.na(1, &[wanted]).done()), Verdict::Alone, "{kind:?}");
    }
    assert_eq!((one.server.book().bound(), two.server.book().bound()), (2, 1));
    // What both know both extend, and give again to who is back.
    for bench in [&mut one, &mut two] {
        let answer = bench.ask(&say(Kind::Renew, 7).ours().na(1, &[known]).done()).unwrap();
        assert_eq!(answer.ias[0].addresses, [(known, 1000, 2000)]);
    }
    two.server.set_alone(false);
    assert!(two.ask(&say(Kind::Request, 2).ours().na(1, &[]).done()).is_some());
}
