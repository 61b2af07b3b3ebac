//! From OpenMetrics to the older text format of Prometheus. There, a family has the name of its
//! samples, and an information metric is a gauge.

/// The same metrics in the older format.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which is in the next line.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            plain.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            plain.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if line != "# EOF" {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples() {
        let open = "# HELP a_b How many.\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n\
                    # HELP e What.\n# TYPE e info\ne_info{v=\"1\"} 1\n\
                    # HELP g Now.\n# TYPE g gauge\ng 2\n# EOF\n";
        let plain = "# HELP a_b_total How many.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n\
                     # HELP e_info What.\n# TYPE e_info gauge\ne_info{v=\"1\"} 1\n\
                     # HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(from_open_metrics(open), plain);
    }
}
