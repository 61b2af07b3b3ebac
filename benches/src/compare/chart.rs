//! The chart: goodput per processor second of each exit, and the cipher's limit.

use std::fmt::Write as _;

use super::{exit::Program, report::Report};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 150.0;
const BAR: f64 = 20.0;
const GROUP_GAP: f64 = 26.0;
const TOP: f64 = 84.0;

const GROUPS: [(&str, &str); 4] = [
    ("up", "up: consumer to internet"),
    ("down", "down: internet to consumer"),
    ("iperf up", "iperf3 TCP x4, up"),
    ("iperf down", "iperf3 TCP x4, down"),
];
const PROGRAMS: [(Program, &str); 3] = [
    (Program::Weir, "#1f6f8b"),
    (Program::WireguardGo, "#b9975b"),
    (Program::Boringtun, "#9aa5ab"),
];

/// An SVG of what was measured; `None` if nothing of it was.
#[must_use]
pub fn svg(report: &Report) -> Option<String> {
    let groups: Vec<_> = GROUPS
        .iter()
        .filter_map(|(name, label)| {
            let bars: Vec<_> = PROGRAMS
                .iter()
                .filter_map(|(program, colour)| {
                    let rate = report.median(name, *program)?.per_exit_second / 1e9;
                    Some((program.name(), *colour, rate))
                })
                .collect();
            (!bars.is_empty()).then_some((*label, bars))
        })
        .collect();
    let most = groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.2).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let height = TOP + bars as f64 * BAR + groups.len() as f64 * GROUP_GAP + 24.0;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: String| writeln!(text, "{words}").unwrap_or_default();
    line(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">"
    ));
    line(format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"));
    line(
        "<text x=\"20\" y=\"30\" font-size=\"17\" font-weight=\"bold\" fill=\"#202428\">Goodput \
         per second of the exit's processor time</text>"
            .to_owned(),
    );
    line(format!(
        "<text x=\"20\" y=\"52\" fill=\"#50585e\">Gbit/s of inner packets; the kernel's receive \
         path included; median of {} rounds, taken in turns; longer is better</text>",
        report.rounds
    ));
    let mut y = TOP;
    for (label, bars) in &groups {
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        line(format!(
            "<text x=\"20\" y=\"{middle}\" fill=\"#202428\" font-weight=\"bold\">{label}</text>"
        ));
        for (name, colour, rate) in bars {
            let width = (rate * scale).max(1.0);
            let (bottom, end) = (y + BAR - 6.0, LEFT + width + 8.0);
            let thick = BAR - 4.0;
            line(format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{thick}\" \
                 fill=\"{colour}\"/>"
            ));
            line(format!(
                "<text x=\"{end:.1}\" y=\"{bottom}\" fill=\"#202428\">{rate:.2}  {name}</text>"
            ));
            y += BAR;
        }
        y += GROUP_GAP;
    }
    line("</svg>".to_owned());
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{case::Outcome, report::CaseResult};

    #[test]
    fn the_longest_bar_fits_and_every_program_is_named() {
        let case = |program, rate| CaseResult {
            part: "throughput".into(),
            name: "up".into(),
            program,
            median: Outcome { per_exit_second: rate, ..Outcome::default() },
            runs: Vec::new(),
        };
        let cases = vec![case(Program::Weir, 6e9), case(Program::WireguardGo, 2e9)];
        let text = svg(&Report { cases, ..Report::default() }).expect("there is something to draw");
        assert!(text.contains(&format!("width=\"{:.1}\"", WIDTH - LEFT - RIGHT)));
        assert!(text.contains("6.00  weir") && text.contains("2.00  wireguard-go"));
        assert!(svg(&Report::default()).is_none());
    }
}
