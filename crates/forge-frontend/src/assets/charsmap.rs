//! SentencePiece's `precompiled_charsmap` (normalizer.cc): strings of a text and what they become.
//!
//! Layout: bytes of the trie (u32), the trie, and the replacements, each ended by NUL. The trie is a Darts-clone double array
//! of u32 units over bytes; a key's value is where its replacement begins.

use std::collections::BTreeMap;

/// Longest string that is replaced, in bytes; SentencePiece's own maps have 18 characters at most.
const LONGEST: usize = 256;
/// Most beginnings of strings; SentencePiece's own maps have less than a tenth.
const MOST: usize = 1 << 20;

/// The map's strings with their replacements; `None` for damaged data.
pub(super) fn entries(charsmap: &[u8]) -> Option<BTreeMap<String, String>> {
    let (size, rest) = charsmap.split_first_chunk::<4>()?;
    let (trie, replacements) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*size)).ok()?)?;
    let units: Vec<u32> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    let replacement = |at: usize| {
        let text = replacements.get(at..)?.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    };
    let mut entries = BTreeMap::new();
    // Equal ends of strings share their nodes, so that a circle shows by its length alone.
    let mut visited = 0;
    let mut open: Vec<(usize, Vec<u8>)> = vec![(offset(*units.first()?), Vec::new())];
    while let Some((node, key)) = open.pop() {
        for byte in 1..=255u8 {
            let at = node ^ usize::from(byte);
            // Units beyond the end are no children; the array need not be padded to a whole block.
            let Some(&unit) = units.get(at) else { continue };
            if unit & LABEL != u32::from(byte) {
                continue;
            }
            visited += 1;
            if visited > MOST || key.len() == LONGEST {
                return None;
            }
            let mut key = key.clone();
            key.push(byte);
            let child = at ^ offset(unit);
            if unit & HAS_LEAF != 0 {
                let value = usize::try_from(units.get(child)? & VALUE).ok()?;
                entries.insert(String::from_utf8(key.clone()).ok()?, replacement(value)?);
            }
            open.push((child, key));
        }
    }
    Some(entries)
}

/// A unit's byte, and the bit that only a leaf has.
const LABEL: u32 = 1 << 31 | 0xFF;
/// Whether a node ends a key.
const HAS_LEAF: u32 = 1 << 8;
/// A leaf's value.
const VALUE: u32 = (1 << 31) - 1;

/// What leads from a node's place to its children's.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of `a` to `xy`: the root's children are at 0 ^ byte, the leaf of `a` at 1.
    fn tiny() -> Vec<u8> {
        let mut units = vec![0u32; 0x100];
        let node = usize::from(b'a');
        // From the node's place to its leaf's.
        units[node] = u32::from(b'a') | HAS_LEAF | ((b'a' as u32 ^ 1) << 10);
        units[1] = 1 << 31;
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"xy\0");
        bytes
    }

    #[test]
    fn a_key_and_what_it_becomes() {
        let found = entries(&tiny()).expect("a map");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "xy".to_owned())]);
    }

    #[test]
    fn damaged_maps_are_noticed() {
        let sound = tiny();
        assert!(entries(&sound[..3]).is_none(), "no size");
        assert!(entries(&sound[..200]).is_none(), "a trie cut off");
        assert!(entries(&sound[..sound.len() - 3]).is_some_and(|map| map["a"].is_empty()), "no replacement");
        let mut circle = sound;
        let unit = u32::from(b'a') | HAS_LEAF;
        circle[4 + 4 * usize::from(b'a')..][..4].copy_from_slice(&(unit | (u32::from(b'a') << 10)).to_le_bytes());
        assert!(entries(&circle).is_none(), "a node that is its own child");
    }
}
