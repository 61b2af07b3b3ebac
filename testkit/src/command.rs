//! Running other programs, with errors that say what was run and what it said.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Runs `command` to its end and gives what it wrote to its standard output.
///
/// # Errors
/// If it cannot be started or fails; the error has the command and what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{shown}: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

/// The command that a line of words separated by spaces stands for.
///
/// # Panics
/// If the line is empty.
#[must_use]
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a line names a program"));
    command.args(words);
    command
}

/// The command as somebody would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
