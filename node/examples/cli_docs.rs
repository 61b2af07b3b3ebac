//! Writes the manual pages and the shells' completions of `weir` into a directory: what packages
//! ship. Both come from the command line's own definition.

use std::{fs, path::PathBuf};

use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let directory =
        std::env::args_os().nth(1).map_or_else(|| "target/package".into(), PathBuf::from);
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for path in [&man, &completions] {
        fs::create_dir_all(path)?;
    }
    clap_mangen::generate_to(weir::cli::command(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut weir::cli::command(), "weir", &completions)?;
    }
    Ok(())
}
