//! Runs the fuzz targets (`tests/fuzz`) briefly on their seeds and on damaged seeds, in every test run. `make fuzz`
//! runs them for longer, guided by coverage.

mod src {
    pub mod targets;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use src::targets::TARGETS;

/// The time per target. Rounds are not counted, because some targets are a thousand times as fast as others.
const ROUNDS_TIME: Duration = Duration::from_millis(1500);
/// Each target runs at least this number of rounds, even if that takes longer than the time.
const LEAST_ROUNDS: u32 = 200;

/// A deterministic generator, so that a failure is repeatable.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// A seed with some bytes changed, doubled, moved, cut off, or taken from another seed.
    fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below(bytes.len() - at + 1).min(64);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.extend_from_within(at..end),
                3 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let piece = &other[from..from + self.below(other.len() - from + 1).min(64)];
                    bytes.splice(at..at, piece.iter().copied());
                }
                4 => bytes.insert(at, [0, 0xff, b'"', b'{', b'}', b'\n', b'9', b'$'][self.below(8)]),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn no_target_finds_anything_in_its_seeds_and_in_damaged_ones() {
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let tried = |input: &[u8]| {
            let found = catch_unwind(AssertUnwindSafe(|| run(input))).is_err();
            assert!(!found, "{name} finds something in {:?}", String::from_utf8_lossy(input));
        };
        seeds.iter().for_each(|seed| tried(seed));
        let (mut numbers, started, mut rounds) = (Numbers(0x9e37_79b9_7f4a_7c15), Instant::now(), 0);
        while rounds < LEAST_ROUNDS || started.elapsed() < ROUNDS_TIME {
            tried(&numbers.damaged(&seeds));
            rounds += 1;
        }
        println!("{name}: {} seeds, {rounds} damaged ones", seeds.len());
    }
}

#[test]
fn every_target_is_one_of_cargo_fuzz_too() {
    let manifest = include_str!("fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
