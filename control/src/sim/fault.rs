//! What goes wrong in a world, by kind, and how often it did.

use std::fmt;

macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$meta])* $name,)*
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &[Fault] = &[$(Fault::$name),*];

            /// What happened, as a count is labelled.
            pub fn text(self) -> &'static str {
                match self {
                    $(Fault::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    /// A packet was lost by chance.
    Loss "packets lost",
    /// A packet arrived twice.
    Duplicate "packets doubled",
    /// A packet overtook another one on its leg.
    Overtaking "packets that overtook others",
    /// A packet took longer than the leg's usual time.
    Delay "packets delayed",
    /// A provider stopped carrying packets one way.
    OneWayCut "one-way cuts",
    /// A provider stopped carrying packets.
    TotalCut "total cuts",
    /// The device of a box said that a provider's link is down.
    Unplugged "cables pulled out",
    /// A provider's router stopped answering.
    RouterDown "silent routers",
    /// A packet was lost to a cut or a silent router.
    CutOff "packets lost to cuts",
    /// A packet was lost on a leg because of its header, or for want of one.
    HeaderDropped "packets lost for their headers",
    /// A provider began to carry smaller packets only.
    Mtu "MTU changes",
    /// A packet was too big for a provider, and its sender was told.
    TooBig "packets too big",
    /// A box was killed and began anew, with nothing but its configuration.
    Restart "box restarts",
    /// Another process took a box's place, and was told what the old one knew.
    Succession "boxes succeeded",
    /// A box died, and the second one of its site served in its place.
    TakeOver "boxes that died beside a second one",
    /// Boxes of one site could not tell each other anything.
    Apart "boxes cut off from each other",
    /// A box did nothing for a while, and then saw all that had come at once.
    Pause "box pauses",
    /// A box's clock jumped forward.
    ClockStep "clock steps",
    /// Somebody off the path sent a packet in another's name, or an odd one in their own.
    Forgery "forged packets",
    /// Somebody who had been on the path sent a control message again.
    ReplayedControl "control messages replayed",
    /// The same with payload.
    ReplayedPayload "payload packets replayed",
    /// Somebody who had been on the path, and knows tags and addresses, made a message up.
    Insider "messages forged with true tags",
    /// A peer claimed a locator that is not its own.
    FalseClaim "false claims of a peer",
    /// A peer claimed a locator under another's prefix, which it owns by its hash, and where it is not.
    Bombing "attempts to have others bombed",
    /// A host left, and its identifier went to another one.
    Moved "identifiers given to another host",
}

/// How often each kind of fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults([u64; Fault::ALL.len()]);

impl Faults {
    /// One more.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How many of a kind.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Those of another world too.
    pub fn add(&mut self, other: &Faults) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fault::ALL.iter().try_for_each(|fault| writeln!(out, "{:>12} {}", self.of(*fault), fault.text()))
    }
}
