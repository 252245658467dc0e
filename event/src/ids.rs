//! Interned identifiers.
//!
//! Strings such as event ids and `(type, state_key)` pairs are turned into integers once, at the
//! storage boundary. Everything that computes (state maps, state resolution, sync) works on these.
//! They are local to one index: they never leave the process in a protocol message.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The interned form of an event id. Numbers grow in the order in which events were first
    /// seen and may have gaps.
    EventNum
);
number!(
    /// The interned form of a room id.
    RoomNum
);
number!(
    /// A place in the one stream that orders everything a client can see. Gap-free, starts at 1;
    /// 0 means "before everything".
    StreamPos
);
number!(
    /// The interned form of a `(type, state_key)` pair.
    ///
    /// The lowest bit says whether the type is `m.room.member`, so that the members of a room can
    /// be walked without looking at the rest of its state, and the other way round.
    StateKeyNum
);

impl StateKeyNum {
    /// Makes the number of the `sequence`-th interned pair.
    #[must_use]
    pub const fn new(sequence: u64, is_member: bool) -> Self {
        Self(sequence << 1 | is_member as u64)
    }

    /// Whether the pair's type is `m.room.member`.
    #[must_use]
    pub const fn is_member(self) -> bool {
        self.0 & 1 == 1
    }

    /// The number's place in the order of interning.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0 >> 1
    }
}
