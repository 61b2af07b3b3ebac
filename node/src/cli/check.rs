//! `weir config check`.

use std::path::Path;

use anyhow::Context as _;

use super::out::Out;
use weir_config::{self as config, Mistake};
use weir_host::uplink::Uplink;
use weir_policy::Lists;

/// Reports every mistake in a configuration and its lists.
pub(super) fn run(file: &Path, out: &mut Out, err: &mut Out) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    let mistakes = mistakes(file, &text);
    for mistake in &mistakes {
        err.text(&format!("{mistake}\n"))?;
    }
    match mistakes.len() {
        0 => out.text(&format!("{}: no mistakes\n", file.display()))?,
        1 => anyhow::bail!("{} has a mistake", file.display()),
        count => anyhow::bail!("{} has {count} mistakes", file.display()),
    }
    Ok(())
}

/// Returns the mistakes, each with file, line and fix. Also checks the lists, and the MTU against
/// the uplink's, if this machine has that uplink.
fn mistakes(file: &Path, text: &str) -> Vec<String> {
    let uplink_mtu = config::check(text, None)
        .ok()
        .and_then(|config| Uplink::find(&config.node.uplink).ok())
        .map(|uplink| uplink.mtu);
    match config::check(text, uplink_mtu) {
        Ok(config) => match Lists::read(&config.policy) {
            Ok(_) => Vec::new(),
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        },
        Err(mistakes) => {
            let line = |mistake: &Mistake| format!("{}:{mistake}", file.display());
            mistakes.iter().map(line).collect()
        }
    }
}
