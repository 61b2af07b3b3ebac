//! Writes the manual pages and the shells' completions of `weir` into a directory: what packages
//! ship. Those of the consumer's commands alone are in `consumer`. All come from the command line's own
//! definition.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let directory =
        std::env::args_os().nth(1).map_or_else(|| "target/package".into(), PathBuf::from);
    write(&directory, &weir::cli::command())?;
    write(&directory.join("consumer"), &weir::cli::consumer_command())
}

fn write(directory: &Path, command: &Command) -> std::io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for path in [&man, &completions] {
        fs::create_dir_all(path)?;
    }
    clap_mangen::generate_to(command.clone(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "weir", &completions)?;
    }
    Ok(())
}
