//! `weir key`: the node's own keys.

use super::out::Out;
use weir_control::client::Client;
use weir_sessions::keys::NodeKeys;

pub(super) fn show(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let keys: NodeKeys = client.get("/v1/keys")?;
    print(&keys, json, out)
}

pub(super) fn change(client: &Client, how: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let keys: NodeKeys = client.post(&format!("/v1/keys/{how}"), &serde_json::json!({}))?;
    print(&keys, json, out)
}

fn print(keys: &NodeKeys, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if json {
        return out.json(keys);
    }
    out.text(&text(keys))?;
    Ok(())
}

fn text(keys: &NodeKeys) -> String {
    let mut text = format!("public key: {}\n", keys.public_key);
    if let Some(previous) = &keys.previous_public_key {
        text.push_str(&format!(
            "old public key, still accepted: {previous}\n\
             once its consumers use the new key, run: weir key retire\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_is_shown_with_what_to_do_about_it() {
        let mut keys = NodeKeys { public_key: "new".into(), previous_public_key: None };
        assert_eq!(text(&keys), "public key: new\n");
        keys.previous_public_key = Some("old".into());
        assert_eq!(
            text(&keys),
            "public key: new\nold public key, still accepted: old\n\
             once its consumers use the new key, run: weir key retire\n"
        );
    }
}
