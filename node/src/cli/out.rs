//! The output streams of commands. Nothing here panics if the reader has closed the stream.

use std::io::{self, IsTerminal as _, Write};

use ratatui::crossterm::terminal;

use super::fold::fold;

/// The width of a terminal that does not report its own, in columns.
const DEFAULT_COLUMNS: usize = 80;
/// The minimum width at which lines are broken, in columns.
const MIN_COLUMNS: usize = 50;

/// An output stream.
pub(super) struct Out {
    to: Box<dyn Write>,
    terminal: bool,
}

impl Out {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        let stream = io::stdout();
        let terminal = stream.is_terminal();
        Self { to: Box::new(stream), terminal }
    }

    /// Standard error.
    pub(super) fn stderr() -> Self {
        let stream = io::stderr();
        let terminal = stream.is_terminal();
        Self { to: Box::new(stream), terminal }
    }

    /// For what nobody is to read.
    pub(super) fn nowhere() -> Self {
        Self { to: Box::new(io::sink()), terminal: false }
    }

    /// Another stream, which counts as a terminal or not.
    #[cfg(test)]
    pub(super) fn new(to: impl Write + 'static, terminal: bool) -> Self {
        Self { to: Box::new(to), terminal }
    }

    /// Whether it is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints the text as it is.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    /// Prints the text. On a terminal, breaks long lines and indents the rest by `indent`.
    pub(super) fn folded(&mut self, text: &str, indent: usize) -> io::Result<()> {
        if !self.terminal {
            return self.text(text);
        }
        let size = terminal::size().map_or(DEFAULT_COLUMNS, |(columns, _)| usize::from(columns));
        self.text(&fold(text, size.max(MIN_COLUMNS), indent))
    }

    /// Prints a value as JSON.
    pub(super) fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.text(&text)?;
        self.text("\n")?;
        Ok(())
    }

    /// Flushes the stream.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether the error means that the reader has closed the stream.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
