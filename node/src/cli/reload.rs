//! `weir reload`.

use super::out::Out;
use weir_control::client::Client;
use weir_control::reload::Outcome;

pub(super) fn run(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let outcome: Outcome = client.post("/v1/reload", &serde_json::json!({}))?;
    if json {
        return out.json(&outcome);
    }
    out.text(&text(&outcome))?;
    Ok(())
}

fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    if outcome.applied.is_empty() && outcome.needs_restart.is_empty() {
        text.push_str("nothing has changed\n");
    }
    for key in &outcome.applied {
        text.push_str(&format!("applied: {key}\n"));
    }
    for key in &outcome.needs_restart {
        text.push_str(&format!("needs a restart: {key}\n"));
    }
    for note in &outcome.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_says_whether_it_is_in_force() {
        let outcome = Outcome {
            applied: vec!["tunnel.dns".into()],
            needs_restart: vec!["tunnel.mtu".into()],
            notes: vec!["a note".into()],
        };
        assert_eq!(text(&outcome), "applied: tunnel.dns\nneeds a restart: tunnel.mtu\na note\n");
        assert_eq!(text(&Outcome::default()), "nothing has changed\n");
    }
}
