//! Room state as a persistent, content-addressed map from [`StateKeyNum`] to [`EventNum`].
//!
//! A [`StateRoot`] names one whole state. Below it are two hash tries, one for the `m.room.member`
//! entries and one for the rest, made of [`Node`]s that are named by 128 bits of the SHA-256 of
//! their bytes. Two facts carry everything else:
//!
//! - Nodes never change, so a change of state writes the few nodes from the changed entry up to
//!   its root and shares all others with the state before.
//! - The form of a trie depends on its entries alone, never on the order in which they came. So
//!   equal states have equal roots, and two states are compared by walking only where the names
//!   of their nodes differ.
//!
//! A subtree of up to 16 entries is one leaf; a larger one is a branch of 16 children, chosen by
//! the next 4 bits of the mixed key. A room with 50,000 members has tries of depth 4 to 5.
//!
//! Nodes are read through [`NodeStore`]; [`ReadState`] adds the reading operations to every node
//! store, and [`Overlay`] collects the nodes that changes make until somebody stores them.

mod memory;
mod node;
mod read;
mod write;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use memory::{MemoryNodes, MissingNode};
pub use node::{DecodeError, Node};
pub use read::{Difference, Entries, ReadState};
pub use write::Overlay;

use crate::{EventNum, StateKeyNum};

/// One entry of a state.
pub type Entry = (StateKeyNum, EventNum);

/// The name of a node: the first 128 bits of the SHA-256 of its bytes.
///
/// A cryptographic hash, because other servers choose what goes into a state: nobody may be able
/// to make two states with one name.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 16]);

impl NodeId {
    /// The name of the empty trie, which has no node.
    pub const EMPTY: Self = Self([0; 16]);

    /// The name as bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The name with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// A subtree: its node and how many entries are below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) id: NodeId,
    pub(crate) len: u32,
}

impl Link {
    pub(crate) const EMPTY: Self = Self { id: NodeId::EMPTY, len: 0 };

    pub(crate) fn is_empty(self) -> bool {
        self.id == NodeId::EMPTY
    }
}

/// The name of a whole state.
///
/// Two states are equal if and only if their roots are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateRoot {
    pub(crate) members: Link,
    pub(crate) others: Link,
}

impl StateRoot {
    /// The state without entries.
    pub const EMPTY: Self = Self { members: Link::EMPTY, others: Link::EMPTY };

    /// The length of [`StateRoot::to_bytes`].
    pub const BYTES: usize = 40;

    /// How many entries the state has.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.members.len as u64 + self.others.len as u64
    }

    /// Whether the state has no entries.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many `m.room.member` entries the state has, whatever their membership.
    #[must_use]
    pub const fn member_len(self) -> u64 {
        self.members.len as u64
    }

    /// How many entries other than `m.room.member` the state has.
    #[must_use]
    pub const fn other_len(self) -> u64 {
        self.others.len as u64
    }

    /// The names of the topmost nodes.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        [self.members, self.others].into_iter().filter(|link| !link.is_empty()).map(|link| link.id)
    }

    /// The root as bytes: both node names and both counts.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts: [&[u8]; 4] = [
            &self.members.id.0,
            &self.members.len.to_be_bytes(),
            &self.others.id.0,
            &self.others.len.to_be_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Reads what [`StateRoot::to_bytes`] made; `None` if the length is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (members, rest) = link_from_bytes(bytes)?;
        let (others, rest) = link_from_bytes(rest)?;
        rest.is_empty().then_some(Self { members, others })
    }

    /// The subtree in which this key lives.
    pub(crate) fn side(self, is_member: bool) -> Link {
        if is_member { self.members } else { self.others }
    }
}

fn link_from_bytes(bytes: &[u8]) -> Option<(Link, &[u8])> {
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    Some((Link { id: NodeId(*id), len: u32::from_be_bytes(*len) }, rest))
}

/// Where nodes are kept.
pub trait NodeStore {
    /// What can go wrong when a node is read; a missing node is such an error.
    type Error;

    /// The node of this name. Never called with [`NodeId::EMPTY`].
    ///
    /// # Errors
    ///
    /// If the node is missing or cannot be read.
    fn node(&self, id: NodeId) -> Result<Arc<Node>, Self::Error>;
}

impl<S: NodeStore + ?Sized> NodeStore for &S {
    type Error = S::Error;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, Self::Error> {
        (**self).node(id)
    }
}

/// Why a state could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError<E> {
    /// The node store failed.
    #[error("a node of the state cannot be read: {0}")]
    Store(E),
    /// The nodes do not form a trie: the node store gave something that was never put there.
    #[error("node {0} is in the wrong place")]
    Misplaced(NodeId),
}
