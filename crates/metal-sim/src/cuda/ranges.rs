//! Sets of bytes of a buffer, as ranges.

use std::ops::Range;

/// Ranges in order that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    ranges: Vec<Range<usize>>,
}

impl Ranges {
    /// Adds the bytes of `range`.
    pub(super) fn insert(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|have| have.end < range.start);
        let end = first + self.ranges[first..].partition_point(|have| have.start <= range.end);
        let joined = match self.ranges[first..end] {
            [] => range,
            [ref one] => one.start.min(range.start)..one.end.max(range.end),
            [ref low, .., ref high] => low.start.min(range.start)..high.end.max(range.end),
        };
        self.ranges.splice(first..end, [joined]);
    }

    /// Takes the bytes of `range` out.
    pub(super) fn remove(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|have| have.end <= range.start);
        let end = first + self.ranges[first..].partition_point(|have| have.start < range.end);
        let mut kept = Vec::new();
        if let [low, ..] = &self.ranges[first..end] {
            kept.push(low.start..range.start);
        }
        if let [.., high] = &self.ranges[first..end] {
            kept.push(range.end..high.end);
        }
        kept.retain(|range| range.start < range.end);
        self.ranges.splice(first..end, kept);
    }

    /// Whether it has all bytes of `range`.
    pub(super) fn has(&self, range: &Range<usize>) -> bool {
        let at = self.ranges.partition_point(|have| have.end < range.end);
        self.ranges.get(at).is_some_and(|have| have.start <= range.start)
    }

    /// The ranges, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Range<usize>> {
        self.ranges.iter()
    }

    /// The bytes of `range` that are in the set, which it then has no more.
    pub(super) fn take_within(&mut self, range: &Range<usize>) -> Vec<Range<usize>> {
        let overlap = |have: &Range<usize>| have.start.max(range.start)..have.end.min(range.end);
        let first = self.ranges.partition_point(|have| have.end <= range.start);
        let end = first + self.ranges[first..].partition_point(|have| have.start < range.end);
        let taken = self.ranges[first..end].iter().map(overlap).filter(|part| !part.is_empty()).collect();
        self.remove(range);
        taken
    }

    /// The ranges, after which the set is empty.
    pub(super) fn take(&mut self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in order as ranges that do not touch.
    fn runs(bytes: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for at in bytes {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    #[test]
    fn ranges_are_the_set_of_their_bytes() {
        let (mut ranges, mut bytes) = (Ranges::default(), [false; 64]);
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below as usize
        };
        for _ in 0..2000 {
            let (start, what) = (next(65), next(3));
            let range = start..(start + next(9)).min(64);
            let before: Vec<usize> = range.clone().filter(|at| bytes[*at]).collect();
            if !range.is_empty() {
                assert_eq!(ranges.has(&range), before.len() == range.len());
            }
            bytes.get_mut(range.clone()).unwrap_or_default().fill(what == 0);
            match what {
                0 => ranges.insert(range),
                1 => ranges.remove(&range),
                _ => assert_eq!(ranges.take_within(&range), runs(before)),
            }
            let want = runs((0..64).filter(|at| bytes[*at]));
            assert_eq!(ranges.iter().cloned().collect::<Vec<_>>(), want);
        }
        assert!(!ranges.take().is_empty());
        assert_eq!(ranges, Ranges::default());
    }
}
