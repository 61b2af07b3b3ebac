//! Every target over its cases and over mutations of them, so that a change that breaks one is seen
//! without a fuzzer.

use std::path::Path;

use weir_fuzz::replay;
use weir_fuzz_text::TARGETS;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_target_holds_over_its_cases_and_their_mutations() {
    replay::cases_and_mutations(Path::new(PACKAGE), TARGETS);
}

#[test]
fn every_target_has_a_program_for_the_fuzzer_and_a_row_in_the_readme() {
    let package = Path::new(PACKAGE);
    replay::programs_and_rows(package, &package.join("../README.md"), TARGETS);
}
