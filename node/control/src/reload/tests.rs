use std::{fs, sync::Mutex};

use super::*;

/// Takes `tunnel.dns` and `policy.block`, and notes what it was told.
struct Part {
    told: Arc<Mutex<Vec<Config>>>,
    refuses: bool,
}

impl Applier for Part {
    fn keys(&self) -> &'static [&'static str] {
        &["tunnel.dns", "policy.block", "policy.allow"]
    }

    fn prepare(&self, config: &Config) -> anyhow::Result<Change> {
        anyhow::ensure!(!self.refuses, "list:7: not a network");
        let (told, config) = (Arc::clone(&self.told), config.clone());
        Ok(Box::new(move || {
            told.lock().expect("not poisoned").push(config);
            Ok(vec!["a note".into()])
        }))
    }
}

struct Rig {
    folder: tempfile::TempDir,
    told: Arc<Mutex<Vec<Config>>>,
    reloader: Reloader,
}

impl Rig {
    fn new(refuses: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("weir.toml");
        let told = Arc::default();
        let part = Part { told: Arc::clone(&told), refuses };
        let reloader = Reloader::new(Some(file), 1500, Config::default(), vec![Box::new(part)]);
        Self { folder, told, reloader }
    }

    fn reload(&self, text: &str) -> Result<Outcome, String> {
        fs::write(self.folder.path().join("weir.toml"), text).expect("written");
        self.reloader.reload().map_err(|error| error.to_string())
    }

    fn told(&self) -> Vec<Config> {
        self.told.lock().expect("not poisoned").clone()
    }
}

#[test]
fn what_can_change_does_and_what_cannot_is_named_each_time() {
    let rig = Rig::new(false);
    let text = "[node]\nlisten_port = 7\n[tunnel]\ndns = [\"8.8.8.8\"]\n";
    let first = rig.reload(text).expect("it fits");
    assert_eq!(first.applied, ["tunnel.dns"]);
    assert_eq!(first.needs_restart, ["node.listen_port"]);
    assert_eq!(first.notes, ["a note"]);
    let told = rig.told();
    assert_eq!(told[0].dns_servers(), [std::net::IpAddr::from([8, 8, 8, 8])]);
    assert_eq!(told[0].node.listen_port, 51820, "it needs a restart");

    let again = rig.reload(text).expect("it fits");
    assert_eq!((again.applied.len(), again.needs_restart.len()), (0, 1));
    assert_eq!(rig.told().len(), 1, "nothing to change");

    let back = rig.reload("").expect("it fits");
    assert_eq!((back.applied, back.needs_restart), (vec!["tunnel.dns".to_owned()], vec![]));
}

#[test]
fn a_mistake_changes_nothing_and_is_named_with_its_line() {
    let rig = Rig::new(false);
    let error = rig.reload("[tunnel]\ndns = [\"8.8.8.8\"]\nmtu = 1421\n").expect_err("no fit");
    assert!(error.contains("weir.toml:3:7: tunnel.mtu: 1421 does not fit"), "{error}");
    assert!(rig.told().is_empty());
    fs::remove_file(rig.folder.path().join("weir.toml")).expect("it was there");
    let error = rig.reloader.reload().expect_err("no file").to_string();
    assert!(error.contains("cannot read the configuration"), "{error}");
}

#[test]
fn a_part_that_cannot_change_is_asked_again_next_time() {
    let mut rig = Rig::new(true);
    let text = "[tunnel]\ndns = [\"8.8.8.8\"]\n";
    let error = rig.reload(text).expect_err("refused");
    assert_eq!(error, "the configuration is unchanged: list:7: not a network");
    let part = Part { told: Arc::clone(&rig.told), refuses: false };
    rig.reloader.appliers = vec![Box::new(part)];
    assert_eq!(rig.reload(text).expect("taken").applied, ["tunnel.dns"]);
}

#[test]
fn values_that_fit_only_after_a_restart_change_nothing() {
    let rig = Rig::new(false);
    let text = "[tunnel]\npool_v4 = \"10.8.0.0/16\"\n[policy]\nallow = [\"10.66.3.0/24\"]\n";
    let error = rig.reload(text).expect_err("the pool is still there");
    assert!(error.contains("after a restart (tunnel.pool_v4)"), "{error}");
    assert!(error.contains("10.66.3.0/24 overlaps the pool 10.66.0.0/16"), "{error}");
    assert!(rig.told().is_empty());
}

#[test]
fn every_section_is_compared() {
    let default = Config::default();
    let table: toml::Table = weir_config::default_text().parse().expect("TOML");
    for (section, keys) in &table {
        for (key, value) in keys.as_table().expect("a section") {
            let toml::Value::Integer(number) = value else { continue };
            let text = format!("[{section}]\n{key} = {}\n", number.saturating_sub(1).max(1));
            let Ok(changed) = weir_config::check(&text, None) else { continue };
            if changed != default {
                assert_eq!(diff::keys(&default, &changed), [format!("{section}.{key}")]);
            }
        }
    }
}

#[test]
fn a_node_that_stops_is_changed_no_more() {
    let rig = Rig::new(false);
    rig.reloader.close();
    let error = rig.reload("[tunnel]\ndns = [\"8.8.8.8\"]\n").expect_err("it stops");
    assert!(error.contains("stopping"), "{error}");
    assert!(rig.told().is_empty());
}
