//! Targets over their cases and over mutations of them, without a fuzzer. The mutations are the same
//! in each run.

#![expect(clippy::expect_used, reason = "it is for tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::Target;

/// Mutations of each target's cases together, and the seed, unless the environment says other ones.
const MUTATIONS: u64 = 300;
const SEED: u64 = 1;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Steele and Vigna's SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % bound.max(1)
    }

    /// A case with some of its bytes changed, put in, taken out, or from another case.
    fn mutation(&mut self, cases: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = cases[self.below(cases.len())].clone();
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, self.below(256) as u8),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let other = &cases[self.below(cases.len())];
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                    bytes.truncate(4096);
                }
            }
        }
        bytes
    }
}

/// Runs every target over its cases, which are in `package/cases/NAME`, and over mutations of them.
///
/// # Panics
///
/// Where a target does not hold, or has less than three cases.
pub fn cases_and_mutations(package: &Path, targets: &[(&str, Target)]) {
    for (name, target) in targets {
        let files = fs::read_dir(package.join("cases").join(name)).expect("the target has cases");
        let mut paths: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
        paths.sort();
        let cases: Vec<Vec<u8>> =
            paths.iter().map(|path| fs::read(path).expect("readable")).collect();
        assert!(cases.len() >= 3, "{name} has only {} cases", cases.len());
        let hold = |bytes: &[u8], what: &str| {
            let held = std::panic::catch_unwind(|| target(bytes));
            assert!(held.is_ok(), "{name} does not hold over {what}: {bytes:?}");
        };
        hold(&[], "nothing");
        for (path, case) in paths.iter().zip(&cases) {
            hold(case, &path.display().to_string());
        }
        let mut random = Random(setting("WEIR_FUZZ_SEED", SEED));
        for _ in 0..setting("WEIR_FUZZ_MUTATIONS", MUTATIONS) {
            hold(&random.mutation(&cases), "a mutation");
        }
    }
}

/// That every target has a program for libFuzzer, cases, and a row in the table of `readme`.
///
/// # Panics
///
/// Where one of them is missing, or there is one of no target.
pub fn programs_and_rows(package: &Path, readme: &Path, targets: &[(&str, Target)]) {
    let readme = fs::read_to_string(readme).expect("there");
    let listed = |place: &str| -> BTreeSet<String> {
        let files = fs::read_dir(package.join(place)).expect("there");
        let name = |file: std::io::Result<fs::DirEntry>| file.expect("readable").file_name();
        let names = files.map(name).map(|name| name.to_string_lossy().into_owned());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let names: BTreeSet<String> = targets.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("cases"), names);
    for name in names {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in README.md");
    }
}
