//! The bounded run that tests make of a target: every seed, then mutations of them by a seeded generator, each within a
//! bound of memory and of time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Memory that any input may take, beside [`PER_BYTE`] times its own length.
const MEMORY: usize = 64 << 20;
const PER_BYTE: usize = 16;
/// Longest time for one input, on a machine with other things to do.
const TIME: Duration = Duration::from_secs(60);

/// The system's allocator, counting what each thread holds.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract, and the pointer is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps `realloc`'s contract, and the pointer is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work` and gives the most bytes that this thread held meanwhile, beyond what it held before.
pub fn memory_of(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    work();
    (MOST.get() - before).max(0) as usize
}

/// Runs a target on every seed of `fuzz/corpus/<name>` and on `rounds` mutations. Gives how many seeds and how many
/// mutations were accepted.
///
/// # Panics
/// The target panics, or an input takes more memory or time than it may.
pub fn run(name: &str, rounds: u64, target: impl Fn(&[u8]) -> bool) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|root| root.join("fuzz/corpus").join(name));
    let folder = folder.into_iter().find(|folder| folder.is_dir()).expect("the corpus");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a seed")).collect();
    let checked = |what: &str, input: &[u8]| {
        let start = Instant::now();
        let mut accepted = false;
        let memory = memory_of(|| accepted = target(input));
        let time = start.elapsed();
        assert!(
            memory <= MEMORY + PER_BYTE * input.len(),
            "{name}: {what} takes {memory} bytes: {}",
            input.escape_ascii()
        );
        assert!(time <= TIME, "{name}: {what} takes {time:?}: {}", input.escape_ascii());
        accepted
    };
    let good: Vec<Vec<u8>> = paths
        .iter()
        .zip(&seeds)
        .filter(|(path, seed)| checked(&path.display().to_string(), seed))
        .map(|(_, seed)| seed.clone())
        .collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let accepted_mutations = (0..rounds)
        .filter(|round| {
            // What a fuzzer found is mostly refused at once: every second input starts from one that is not.
            let mut input = random.of(if round % 2 == 0 && !good.is_empty() { &good } else { &seeds }).clone();
            for _ in 0..=random.below(3) {
                mutate(&mut input, &seeds, &mut random);
            }
            checked(&format!("round {round}"), &input)
        })
        .count();
    (good.len(), accepted_mutations)
}

/// Numbers that a length, a count, an offset or an id had better not be trusted to be.
const NUMBERS: [u64; 12] = [0, 1, 2, 127, 255, 65_535, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 60, 1 << 63, u64::MAX];

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    if input.is_empty() {
        input.push(random.next() as u8);
        return;
    }
    let at = random.below(input.len());
    let end = (at + 1 + random.below(32)).min(input.len());
    let number = *random.of(&NUMBERS);
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, copy);
        }
        5 => {
            // In place of as many bytes, as binary formats have numbers.
            let width = *random.of(&[4, 8]);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        6 => {
            // In place of a decimal, as JSON and templates have them.
            let digits = (at..input.len()).find(|&i| input[i].is_ascii_digit()).unwrap_or(at);
            let end = (digits..input.len()).find(|&i| !input[i].is_ascii_digit()).unwrap_or(input.len());
            input.splice(digits..end, number.to_string().into_bytes());
        }
        7 => {
            let other = random.of(seeds);
            let from = random.below(other.len());
            let to = (from + random.below(64)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            let words: [&[u8]; 8] = [b"null", b"{}", b"[", b"../", b"/", b"-1", b"1e999", b"\\u0000"];
            input.splice(at..at, random.of(&words).iter().copied());
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, or 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64).max(1)) as usize
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
