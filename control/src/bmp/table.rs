//! The IPv6 prefixes one BGP session has, and which of the /64s somebody asked about they cover.
//!
//! A prefix costs some twenty octets and no more is kept of it. For each /64 that is asked about the longest prefix over it is
//! remembered, so a withdrawal only concerns those over which that very prefix was the longest. The slow twin in the tests looks
//! at everything each time.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

/// A prefix of at most 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    // In halves, so that prefix and count fill sixteen octets.
    high: u32,
    low: u32,
    len: u8,
}

impl Net {
    /// The longest that is of interest.
    const LEN_MAX: u8 = 64;
    /// ::/0.
    pub const DEFAULT: Net = Net { high: 0, low: 0, len: 0 };

    /// The first `len` bits of `bits`, the first half of an address; nothing if it is too long to cover a /64.
    pub fn new(bits: u64, len: u8) -> Option<Net> {
        if len > Net::LEN_MAX {
            return None;
        }
        let bits = bits & mask(len);
        Some(Net { high: (bits >> 32) as u32, low: bits as u32, len })
    }

    fn bits(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// The last /64 under it.
    fn last(self) -> u64 {
        self.bits() | !mask(self.len)
    }
}

fn mask(len: u8) -> u64 {
    u64::MAX.checked_shl(64 - u32::from(len)).unwrap_or(0)
}

/// There are more prefixes than were foreseen. The table is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What is known of a /64 that is asked about.
#[derive(Clone, Copy, Debug, Default)]
struct Cover {
    /// How long the longest prefix over it is, if there is one.
    longest: Option<u8>,
    /// Whether there was one since the table began.
    was: bool,
}

impl Cover {
    fn of(longest: Option<u8>) -> Cover {
        Cover { longest, was: longest.is_some() }
    }
}

/// Prefixes, and /64s that are asked about, each as the first half of its addresses.
#[derive(Debug)]
pub struct Table {
    /// With how many paths each has.
    nets: HashMap<Net, u32>,
    /// The paths, where prefixes have several.
    paths: HashSet<(Net, u32)>,
    has_paths: bool,
    /// How many there are of each length.
    lengths: [u32; Net::LEN_MAX as usize + 1],
    asked: BTreeMap<u64, Cover>,
    nets_max: usize,
    /// Whether ::/0 covers anything.
    default_counts: bool,
}

impl Table {
    /// An empty table that takes at most so many prefixes (or paths).
    pub fn new(nets_max: usize, default_counts: bool) -> Table {
        Table {
            nets: HashMap::new(),
            paths: HashSet::new(),
            has_paths: false,
            lengths: [0; Net::LEN_MAX as usize + 1],
            asked: BTreeMap::new(),
            nets_max,
            default_counts,
        }
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.nets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// Begins anew, with nothing but what is asked about. Those that were covered are added to `changed`.
    pub fn clear(&mut self, has_paths: bool, changed: &mut Vec<u64>) {
        // New ones, so that the memory is given back.
        (self.nets, self.paths, self.has_paths) = (HashMap::new(), HashSet::new(), has_paths);
        self.lengths = [0; Net::LEN_MAX as usize + 1];
        for (asked, cover) in &mut self.asked {
            if std::mem::take(cover).longest.is_some() {
                changed.push(*asked);
            }
        }
    }

    /// A route is there. Those that are covered by it and were not before are added to `changed`.
    ///
    /// # Errors
    /// There are too many.
    pub fn announce(&mut self, (net, path): (Net, u32), changed: &mut Vec<u64>) -> Result<(), Full> {
        if net == Net::DEFAULT && !self.default_counts {
            return Ok(());
        }
        if self.has_paths && !self.paths.insert((net, path)) {
            return Ok(());
        }
        let before = self.nets.len();
        let count = self.nets.entry(net).or_insert(0);
        *count = if self.has_paths { *count + 1 } else { 1 };
        if self.nets.len().max(self.paths.len()) > self.nets_max {
            return Err(Full);
        }
        if self.nets.len() == before {
            return Ok(());
        }
        self.lengths[usize::from(net.len)] += 1;
        for (asked, cover) in self.asked.range_mut(net.bits()..=net.last()) {
            if cover.longest.is_none() {
                changed.push(*asked);
            }
            *cover = Cover::of(Some(cover.longest.map_or(net.len, |longest| longest.max(net.len))));
        }
        Ok(())
    }

    /// A route is gone. Those that nothing covers any more are added to `changed`.
    pub fn withdraw(&mut self, (net, path): (Net, u32), changed: &mut Vec<u64>) {
        if self.has_paths && !self.paths.remove(&(net, path)) {
            return;
        }
        let Some(count) = self.nets.get_mut(&net) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.nets.remove(&net);
        self.lengths[usize::from(net.len)] -= 1;
        let Table { nets, lengths, asked, .. } = self;
        for (asked, cover) in asked.range_mut(net.bits()..=net.last()) {
            if cover.longest == Some(net.len) {
                cover.longest = longest_over(nets, lengths, *asked);
                if cover.longest.is_none() {
                    changed.push(*asked);
                }
            }
        }
    }

    /// Somebody asks about a /64 from now on.
    pub fn ask(&mut self, asked: u64) {
        self.asked.entry(asked).or_insert_with(|| Cover::of(longest_over(&self.nets, &self.lengths, asked)));
    }

    /// Nobody asks about it any more.
    pub fn forget(&mut self, asked: u64) {
        self.asked.remove(&asked);
    }

    /// Whether a /64 that is asked about is covered.
    pub fn covers(&self, asked: u64) -> bool {
        self.asked.get(&asked).is_some_and(|cover| cover.longest.is_some())
    }

    /// Whether it was, at some time since the table began.
    pub fn covered(&self, asked: u64) -> bool {
        self.asked.get(&asked).is_some_and(|cover| cover.was)
    }
}

fn longest_over(nets: &HashMap<Net, u32>, lengths: &[u32], asked: u64) -> Option<u8> {
    let there = |len: &u8| lengths.get(usize::from(*len)).is_some_and(|count| *count > 0);
    let over = |len: &u8| Net::new(asked, *len).is_some_and(|net| nets.contains_key(&net));
    (0..=Net::LEN_MAX).rev().filter(there).find(over)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Net {
        let (address, len) = text.split_once('/').unwrap();
        let bits = address.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
        Net::new((bits >> 64) as u64, len.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_prefix_costs_sixteen_octets_and_is_its_first_bits() {
        assert_eq!(size_of::<(Net, u32)>(), 16);
        assert_eq!(net("2001:db8:1:2:3::/48"), net("2001:db8:1::/48"));
        assert_ne!(net("2001:db8:1::/48"), net("2001:db8:1::/49"));
        assert_eq!((net("::/0"), Net::new(u64::MAX, 0)), (Net::DEFAULT, Some(Net::DEFAULT)));
        assert_eq!(Net::new(0, 65), None);
        assert_eq!((net("2001:db8::/32").last(), net("::/0").last()), (0x2001_0db8_ffff_ffff, u64::MAX));
    }

    #[test]
    fn nested_prefixes_cover_until_the_last_of_them_is_gone() {
        let mut table = Table::new(10, true);
        let peer = net("2001:db8:b:1::/64").bits();
        table.ask(peer);
        let mut changed = Vec::new();
        for (text, there, news) in [
            ("2001:db8:b::/48", true, true),
            ("2001:db8::/32", true, false),
            ("2001:db8:b::/48", true, false),
            ("2001:db8:b::/48", false, false),
            ("2001:db8:c::/48", false, false),
            ("2001:db8::/32", false, true),
            ("::/0", true, true),
            ("2001:db8:b:1::/64", true, false),
            ("::/0", false, false),
            ("2001:db8:b:1::/64", false, true),
        ] {
            let route = (net(text), 0);
            match there {
                true => table.announce(route, &mut changed).unwrap(),
                false => table.withdraw(route, &mut changed),
            }
            assert_eq!(std::mem::take(&mut changed), if news { vec![peer] } else { vec![] }, "{text} {there}");
        }
        assert!(table.is_empty());
        let mut without = Table::new(10, false);
        without.ask(peer);
        without.announce((Net::DEFAULT, 0), &mut changed).unwrap();
        assert!(!without.covers(peer) && changed.is_empty());
    }

    #[test]
    fn a_route_with_several_paths_is_there_until_the_last_one_goes() {
        let mut table = Table::new(3, true);
        let mut changed = Vec::new();
        table.clear(true, &mut changed);
        table.ask(0);
        for path in [1, 2, 2] {
            table.announce((Net::DEFAULT, path), &mut changed).unwrap();
        }
        table.withdraw((Net::DEFAULT, 7), &mut changed);
        table.withdraw((Net::DEFAULT, 1), &mut changed);
        assert!(table.covers(0));
        table.withdraw((Net::DEFAULT, 2), &mut changed);
        assert!(!table.covers(0));
        assert_eq!(changed, [0, 0]);
        // Paths have the bound that prefixes have.
        assert!((0..3).all(|path| table.announce((Net::DEFAULT, path), &mut changed).is_ok()));
        assert_eq!(table.announce((Net::DEFAULT, 3), &mut changed), Err(Full));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut table = Table::new(2, true);
        let mut changed = Vec::new();
        let mut announce = |text| table.announce((net(text), 0), &mut changed);
        let said = ["2001:db8::/32", "2001:db9::/32", "2001:db8::/32", "2001:dba::/32"].map(&mut announce);
        assert_eq!(said, [Ok(()), Ok(()), Ok(()), Err(Full)]);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Announce(Net, u32),
        Withdraw(Net, u32),
        Ask(u64),
        Forget(u64),
        Clear,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        // Few bits, so that prefixes nest and meet.
        let bits = || (0u64..8, any::<bool>()).prop_map(|(high, low)| high << 61 | u64::from(low));
        let len = prop_oneof![Just(0u8), 1u8..5, Just(63u8), Just(64u8)];
        let net = (bits(), len).prop_map(|(bits, len)| Net::new(bits, len).unwrap());
        let route = (net, 0u32..3);
        prop_oneof![
            8 => route.clone().prop_map(|(net, path)| Operation::Announce(net, path)),
            8 => route.prop_map(|(net, path)| Operation::Withdraw(net, path)),
            2 => bits().prop_map(Operation::Ask),
            1 => bits().prop_map(Operation::Forget),
            1 => Just(Operation::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_table_says_what_its_slow_twin_says(
            operations in vec(operation(), 0..120), has_paths: bool, default_counts: bool,
        ) {
            let mut table = Table::new(1000, default_counts);
            let mut changed = Vec::new();
            table.clear(has_paths, &mut changed);
            let mut routes: BTreeSet<(Net, u32)> = BTreeSet::new();
            let mut asked: BTreeSet<u64> = BTreeSet::new();
            let covers = |routes: &BTreeSet<(Net, u32)>, asked: u64| {
                let over = |net: &Net| (asked ^ net.bits()) & mask(net.len) == 0;
                routes.iter().any(|(net, _)| (default_counts || *net != Net::DEFAULT) && over(net))
            };
            for operation in operations {
                let before: Vec<bool> = asked.iter().map(|it| covers(&routes, *it)).collect();
                let old = asked.clone();
                changed.clear();
                match operation {
                    Operation::Announce(net, path) => {
                        let path = if has_paths { path } else { 0 };
                        routes.insert((net, path));
                        table.announce((net, path), &mut changed).unwrap();
                    }
                    Operation::Withdraw(net, path) => {
                        let path = if has_paths { path } else { 0 };
                        routes.remove(&(net, path));
                        table.withdraw((net, path), &mut changed);
                    }
                    Operation::Ask(it) => { asked.insert(it); table.ask(it); }
                    Operation::Forget(it) => { asked.remove(&it); table.forget(it); }
                    Operation::Clear => { routes.clear(); table.clear(has_paths, &mut changed); }
                }
                for it in &asked {
                    prop_assert_eq!(table.covers(*it), covers(&routes, *it));
                }
                let news: BTreeSet<u64> = old.iter().zip(before)
                    .filter(|(it, before)| asked.contains(it) && covers(&routes, **it) != *before)
                    .map(|(it, _)| *it).collect();
                prop_assert_eq!(changed.iter().copied().collect::<BTreeSet<_>>(), news);
                let distinct: BTreeSet<Net> = routes.iter().map(|(net, _)| *net)
                    .filter(|net| default_counts || *net != Net::DEFAULT).collect();
                prop_assert_eq!(table.len(), distinct.len());
            }
        }
    }
}
