//! One node of a trie and its bytes.
//!
//! | node | bytes |
//! |---|---|
//! | leaf | `1`, number of entries, smallest event number, then per entry: step from the key before, event number less the smallest |
//! | branch | `2`, bitmap of the children (2 bytes), then per child: name (16 bytes), number of entries |
//!
//! Numbers are LEB128 in their shortest form. Every node has exactly one encoding, and decoding
//! refuses all others, so that a name always stands for one content.

use sha2::{Digest, Sha256};

use super::{Entry, Link, NodeId};
use crate::{EventNum, StateKeyNum};

/// The most entries that a leaf holds.
pub(crate) const LEAF_MAX: usize = 16;
/// How many children a branch can have.
pub(crate) const FANOUT: usize = 16;
/// The depth at which all bits of a key are used up.
pub(crate) const MAX_LEVEL: u32 = 16;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// A part of a state: up to 16 entries, or up to 16 subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ordered by key.
    Leaf(Box<[Entry]>),
    Branch(Branch),
}

/// Bit `n` of the bitmap says whether there is a child `n`; the links are those that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    bitmap: u16,
    links: Box<[Link]>,
}

impl Branch {
    pub(crate) fn new(children: &[Link; FANOUT]) -> Self {
        let mut bitmap = 0;
        for (index, link) in children.iter().enumerate() {
            bitmap |= u16::from(!link.is_empty()) << index;
        }
        Self { bitmap, links: children.iter().filter(|link| !link.is_empty()).copied().collect() }
    }

    /// The child in this place, perhaps empty.
    pub(crate) fn child(&self, index: usize) -> Link {
        let bit = 1_u16.checked_shl(index as u32).unwrap_or(0);
        if self.bitmap & bit == 0 {
            return Link::EMPTY;
        }
        let before = (self.bitmap & (bit - 1)).count_ones() as usize;
        self.links.get(before).copied().unwrap_or_default()
    }

    pub(crate) fn children(&self) -> [Link; FANOUT] {
        std::array::from_fn(|index| self.child(index))
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }
}

/// Bytes that are not a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of the node.
    #[error("the node is cut off")]
    Short,
    /// There are more bytes than the node has.
    #[error("the node is followed by other bytes")]
    Long,
    /// The first byte names no kind of node.
    #[error("there is no node of kind {0}")]
    Kind(u8),
    /// The number of entries or children, or a number within, is impossible.
    #[error("the node holds a number that is out of range or not in its shortest form")]
    Number,
}

impl Node {
    pub(crate) fn leaf(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(|(key, _)| *key);
        Self(Kind::Leaf(entries.into()))
    }

    pub(crate) fn branch(children: &[Link; FANOUT]) -> Self {
        Self(Kind::Branch(Branch::new(children)))
    }

    /// The node's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Leaf(entries) => encode_leaf(entries),
            Kind::Branch(branch) => encode_branch(branch),
        }
    }

    /// Reads a node out of its bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for all bytes that [`Node::encode`] never makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
        let mut reader = Reader(rest);
        let node = match *kind {
            LEAF => decode_leaf(&mut reader)?,
            BRANCH => decode_branch(&mut reader)?,
            other => return Err(DecodeError::Kind(other)),
        };
        if reader.0.is_empty() { Ok(node) } else { Err(DecodeError::Long) }
    }

    /// The name of a node with these bytes.
    #[must_use]
    pub fn id_of(encoded: &[u8]) -> NodeId {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(Sha256::digest(encoded)) {
            *to = from;
        }
        NodeId(id)
    }

    /// The node's name. It is computed anew each time.
    #[must_use]
    pub fn id(&self) -> NodeId {
        Self::id_of(&self.encode())
    }

    /// The names of the nodes right below.
    pub fn children(&self) -> impl Iterator<Item = NodeId> {
        let links = match &self.0 {
            Kind::Leaf(_) => &[],
            Kind::Branch(branch) => branch.links(),
        };
        links.iter().map(|link| link.id)
    }

    /// About how many bytes of memory the node takes; for caches.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Kind::Leaf(entries) => size_of_val::<[Entry]>(entries),
                Kind::Branch(branch) => size_of_val::<[Link]>(&branch.links),
            }
    }
}

fn encode_leaf(entries: &[Entry]) -> Vec<u8> {
    let base = entries.iter().map(|(_, event)| event.0).min().unwrap_or_default();
    let mut bytes = Vec::with_capacity(8 + entries.len() * 6);
    bytes.push(LEAF);
    put_number(&mut bytes, entries.len() as u64);
    put_number(&mut bytes, base);
    let mut before = 0;
    for (key, event) in entries {
        put_number(&mut bytes, key.0 - before);
        put_number(&mut bytes, event.0 - base);
        before = key.0;
    }
    bytes
}

fn encode_branch(branch: &Branch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + branch.links.len() * 18);
    bytes.push(BRANCH);
    bytes.extend_from_slice(&branch.bitmap.to_be_bytes());
    for link in &branch.links {
        bytes.extend_from_slice(&link.id.0);
        put_number(&mut bytes, link.len.into());
    }
    bytes
}

fn decode_leaf(reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    let len = reader.number()?;
    if !(1..=LEAF_MAX as u64).contains(&len) {
        return Err(DecodeError::Number);
    }
    let base = reader.number()?;
    let mut entries: Vec<Entry> = Vec::with_capacity(LEAF_MAX);
    let mut smallest = u64::MAX;
    for index in 0..len {
        let step = reader.number()?;
        let above = reader.number()?;
        if step == 0 && index > 0 {
            return Err(DecodeError::Number);
        }
        let before = entries.last().map_or(0, |(key, _)| key.0);
        let key = before.checked_add(step).ok_or(DecodeError::Number)?;
        let event = base.checked_add(above).ok_or(DecodeError::Number)?;
        smallest = smallest.min(above);
        entries.push((StateKeyNum(key), EventNum(event)));
    }
    if smallest != 0 {
        return Err(DecodeError::Number);
    }
    Ok(Node(Kind::Leaf(entries.into())))
}

fn decode_branch(reader: &mut Reader<'_>) -> Result<Node, DecodeError> {
    let bitmap = u16::from_be_bytes(reader.chunk()?);
    let mut links = Vec::with_capacity(FANOUT);
    let mut total = 0_u32;
    for _ in 0..bitmap.count_ones() {
        let id = NodeId(reader.chunk()?);
        let len = u32::try_from(reader.number()?).map_err(|_| DecodeError::Number)?;
        if id == NodeId::EMPTY || len == 0 {
            return Err(DecodeError::Number);
        }
        total = total.checked_add(len).ok_or(DecodeError::Number)?;
        links.push(Link { id, len });
    }
    if total as usize <= LEAF_MAX {
        return Err(DecodeError::Number);
    }
    Ok(Node(Kind::Branch(Branch { bitmap, links: links.into() })))
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.chunk()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(DecodeError::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number)
    }
}

/// Where a key lives in its trie: 4 bits per level from the top.
///
/// State keys are numbered in sequence, so the bits are mixed (the finaliser of SplitMix64). It is
/// a bijection: two keys never share all 64 bits, which bounds the depth.
pub(crate) fn place(key: StateKeyNum) -> u64 {
    let mut bits = key.0;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Which child of a branch at this level leads to a place.
pub(crate) fn child_index(place: u64, level: u32) -> usize {
    (place >> 60_u32.saturating_sub(4 * level)) as usize % FANOUT
}
