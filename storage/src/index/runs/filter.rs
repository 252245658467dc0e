//! Which keys are surely not in a run: a Bloom filter, which stands in the engine beside it.

use bytes::Bytes;

use crate::StorageError;

/// So that one of a hundred absent keys is looked for.
const BITS_OF_KEY: u64 = 10;

/// How many of the bits a key sets.
const PROBES: u64 = 6;

/// Bytes of a piece of a filter in the engine.
const PIECE: usize = 4 << 10;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    words: Vec<u64>,
}

/// What a filter knows of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// The same for all time, since filters are kept.
    pub(super) fn of(key: &[u8]) -> Self {
        let (front, back) = key.split_at(key.len() / 2);
        let halves = u64::from(crc32c::crc32c(front)) << 32 | u64::from(crc32c::crc32c(back));
        // Sebastiano Vigna's splitmix64: each bit depends on all of them.
        let mixed = (halves ^ halves >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ mixed >> 31)
    }
}

impl Filter {
    /// An empty filter for so many keys.
    pub(super) fn new(keys: u64) -> Self {
        let words = Self::bytes_for(keys) / size_of::<u64>() as u64;
        Self { words: vec![0; usize::try_from(words).unwrap_or(1)] }
    }

    /// How many bytes a filter for so many keys takes.
    pub(super) fn bytes_for(keys: u64) -> u64 {
        let words = keys.saturating_mul(BITS_OF_KEY).div_ceil(u64::from(u64::BITS)).max(1);
        words * size_of::<u64>() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&*self.words) as u64
    }

    pub(super) fn add(&mut self, key: Fingerprint) {
        for (word, bit) in self.places(key) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    pub(super) fn may_have(&self, key: Fingerprint) -> bool {
        self.places(key).all(|(word, bit)| self.words.get(word).is_some_and(|at| at & bit != 0))
    }

    /// The words in which a key has its bits, and these.
    fn places(&self, Fingerprint(hash): Fingerprint) -> impl Iterator<Item = (usize, u64)> + use<> {
        let bits = self.words.len() as u128 * u128::from(u64::BITS);
        let step = hash.rotate_left(32) | 1;
        (0..PROBES).map(move |number| {
            let hash = hash.wrapping_add(step.wrapping_mul(number));
            // As far into the bits as the hash is into the numbers of 64 bits.
            let bit = (u128::from(hash) * bits) >> 64;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    /// What is written into the engine.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let pieces = self.words.chunks(PIECE / size_of::<u64>());
        pieces.map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// The filter of these pieces; `None` if there are none.
    pub(super) fn from_pieces(
        pieces: impl Iterator<Item = Bytes>,
    ) -> Result<Option<Self>, StorageError> {
        let mut words = Vec::new();
        for piece in pieces {
            let (read, rest) = piece.as_chunks();
            if !rest.is_empty() {
                return Err(StorageError::Index("a filter is cut off".to_owned()));
            }
            words.extend(read.iter().map(|word| u64::from_le_bytes(*word)));
        }
        Ok(Some(Self { words }).filter(|filter| !filter.words.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Fingerprint {
        Fingerprint::of(format!("$a{number}:example.org").as_bytes())
    }

    #[test]
    fn what_is_there_is_known_and_hardly_anything_else() {
        for keys in [0, 1, 7, 5_000] {
            let mut filter = Filter::new(keys.into());
            (0..keys).for_each(|number| filter.add(key(number)));
            let read = Filter::from_pieces(filter.pieces()).unwrap().unwrap();
            assert_eq!(read, filter);
            assert!((0..keys).all(|number| read.may_have(key(number))));
            let wrong = (keys..keys + 10_000).filter(|number| read.may_have(key(*number))).count();
            assert!(wrong < 200, "{wrong} of 10,000 with {keys} keys");
        }
    }

    #[test]
    fn what_is_no_filter_is_none() {
        assert_eq!(Filter::from_pieces(std::iter::empty()).unwrap(), None);
        assert!(Filter::from_pieces([Bytes::from_static(b"seven b")].into_iter()).is_err());
    }
}
