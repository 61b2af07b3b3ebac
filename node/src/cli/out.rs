//! Where commands print. Nothing here panics when the reader has gone.

use std::io::{self, IsTerminal as _, Write};

use ratatui::crossterm::terminal;

use super::fold::fold;

/// How many columns a terminal has that does not say.
const DEFAULT_COLUMNS: usize = 80;
/// In fewer columns, broken lines are no better.
const MIN_COLUMNS: usize = 50;

/// A stream for people or programs.
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

    /// Anything else, taken for a terminal or not.
    #[cfg(test)]
    pub(super) fn new(to: impl Write + 'static, terminal: bool) -> Self {
        Self { to: Box::new(to), terminal }
    }

    /// Whether a person reads it directly.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints the text as it is.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    /// Prints the text; on a terminal with its long lines broken, and indented by `indent`.
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

    /// Sees to it that everything is out.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether an error comes from a reader that has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
