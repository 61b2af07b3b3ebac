//! How far each kernel's verifier walks through the programs of a running node: it gives up after a
//! million instructions.

use std::collections::BTreeMap;

use aya::programs::loaded_programs;

/// The newest programs of weir's that are loaded, each with the instructions that the verifier has
/// walked through.
pub(crate) fn walked() -> String {
    let mut newest = BTreeMap::new();
    for program in loaded_programs() {
        // One that ended meanwhile cannot be asked.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().unwrap_or_default().to_owned();
        if let Some(count) = program.verified_instruction_count()
            && name.starts_with("weir_")
        {
            newest.insert(name, count);
        }
    }
    let all: Vec<_> = newest.iter().map(|(name, count)| format!("{name} {count}")).collect();
    all.join(", ")
}
