//! A configuration as a QR code that WireGuard apps scan.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

/// Renders the configuration as a QR code of half blocks, black on white regardless of the
/// terminal's colours. Returns `None` if it does not fit.
pub(super) fn render(config: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(essence(config), EcLevel::L).ok()?;
    let image = code.render::<Dense1x2>().build();
    let lines = image.lines().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n"));
    Some(lines.collect())
}

/// Without comments and empty lines, so that the code stays small.
fn essence(config: &str) -> String {
    let lines = config.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_has_all_that_counts_and_fits_a_terminal() {
        let config = format!("# a comment\n[Interface]\n\nPrivateKey = {}\n", "x".repeat(350));
        assert_eq!(essence(&config).lines().count(), 2);
        let code = render(&config).expect("it fits");
        let widths: Vec<_> = code.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0] && *width < 100), "{widths:?}");
        assert!(code.lines().count() < 50);
    }

    #[test]
    fn what_is_too_long_for_a_code_gives_none() {
        assert_eq!(render(&"x".repeat(5000)), None);
    }
}
