//! `cargo xtask check-ebpf`: the committed eBPF objects are what the source gives.
#![expect(clippy::print_stdout, reason = "a task tells what it found")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::build_ebpf::{self, Built, OBJECTS, Object, Record};

/// Builds the objects anew and compares them with the committed ones.
///
/// # Errors
///
/// Fails when one differs, and says whether the source or the toolchain is the reason.
pub(crate) fn run() -> Result<()> {
    let root = build_ebpf::root();
    let read = |path: &str| {
        fs::read(root.join(path))
            .with_context(|| format!("{path} is missing: run `cargo xtask build-ebpf`"))
    };
    let mut all = Vec::new();
    for object in &OBJECTS {
        let record = String::from_utf8(read(object.record)?).ok();
        let record = record.and_then(|text| Record::parse(&text));
        let record = record.with_context(|| format!("{} is not readable", object.record))?;
        all.push((read(object.path)?, record));
    }
    for (built, (committed, record)) in build_ebpf::build()?.iter().zip(&all) {
        compare(&root, built, committed, record)?;
    }
    Ok(())
}

fn compare(root: &Path, built: &Built, committed: &[u8], record: &Record) -> Result<()> {
    let Object { path, record: record_path, .. } = built.object;
    let here = &built.record.toolchain;
    if built.bytes == committed {
        println!("{path} is what the source gives, byte for byte ({here})");
        return Ok(());
    }
    let reason = reason(record, built, committed)?;
    let difference = difference(root, built, committed)?;
    if *here == record.toolchain {
        bail!(
            "{path} is not what the source gives: {reason}. Run `cargo xtask build-ebpf` and \
             commit {path} and {record_path}.{difference}"
        );
    }
    ensure!(
        difference.is_empty(),
        "{path} was built with {}, and {here} gives other programs from this source ({reason}). \
         Build it with the recorded toolchain to tell whether the source is the reason, or run \
         `cargo xtask build-ebpf` and commit {path} and {record_path}.{difference}",
        record.toolchain,
    );
    println!(
        "{path} has the programs and maps that the source gives; other bytes differ, since it \
         was built with {} and here is {here}",
        record.toolchain
    );
    Ok(())
}

fn reason(record: &Record, built: &Built, committed: &[u8]) -> Result<&'static str> {
    Ok(if record.object != build_ebpf::sha256(committed)? {
        "the committed object is not the one that its record describes"
    } else if record.sources == built.record.sources {
        "the sources are those of the record, so the build is not reproducible here"
    } else {
        "node-ebpf or node-common has changed since it was built"
    })
}

/// The first lines of the programs, maps and symbols that differ; empty if none do.
fn difference(root: &Path, built: &Built, committed: &[u8]) -> Result<String> {
    let directory = root.join("node-ebpf/target");
    let disassemble = |name: &str, object: &[u8]| -> Result<Vec<String>> {
        let path = directory.join(name);
        fs::write(&path, object).context("write an object to compare")?;
        // Every instruction with its relocations, the maps' definitions, and all symbols.
        let output = Command::new(objdump())
            .args(["--disassemble", "--reloc", "--syms", "--full-contents", "--no-show-raw-insn"])
            .args(["--section=maps", "--section=license", "--section=.rodata"])
            .args(["xdp", "xdp.frags", "sk_reuseport", "socket"].map(|s| format!("--section={s}")))
            .arg(&path)
            .output()
            .context("run llvm-objdump")?;
        ensure!(output.status.success(), "llvm-objdump failed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter(|line| !line.contains("file format")).map(str::to_owned).collect())
    };
    let old = disassemble("committed.o", committed)?;
    let new = disassemble("built.o", &built.bytes)?;
    if old == new {
        return Ok(String::new());
    }
    let (in_old, in_new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
    let lines = |sign: &str, lines: &mut dyn Iterator<Item = &&String>| {
        lines.take(10).map(|line| format!("\n  {sign} {line}")).collect::<String>()
    };
    let gone = lines("-", &mut in_old.difference(&in_new));
    let come = lines("+", &mut in_new.difference(&in_old));
    Ok(format!("\nThe first instructions or symbols that differ:{gone}{come}"))
}

fn objdump() -> &'static str {
    let debian = "/usr/lib/llvm-22/bin/llvm-objdump";
    if Path::new(debian).exists() { debian } else { "llvm-objdump" }
}
