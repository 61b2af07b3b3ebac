//! Sessions are kept.

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Lab, Settings, lab::SERVERS, steps::connected};

#[test]
fn sessions_and_their_counts_are_the_same_after_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    for name in ["b", "c"] {
        node.session_add(name)?;
    }
    client.ping(SERVERS[0], 20)?;
    let before = node.session_list()?;
    node.stop()?;
    node.restart()?;
    let after = node.session_list()?;
    ensure!(after.len() == 3, "{after:?}");
    for old in &before {
        let new = after.iter().find(|new| new.id == old.id).context("a session is gone")?;
        ensure!(new.public_key == old.public_key && new.name == old.name, "{old:?} {new:?}");
        ensure!(new.address_v4 == old.address_v4, "{old:?} {new:?}");
        ensure!(new.address_v6 == old.address_v6, "{old:?} {new:?}");
        ensure!(new.bytes_up >= old.bytes_up, "{old:?} {new:?}");
        ensure!(new.bytes_down >= old.bytes_down, "{old:?} {new:?}");
    }
    client.wait_connected(SERVERS[0])?;
    let old = before.iter().find(|old| old.id == added.session.id).context("no session")?;
    ensure!(node.session_show(&added.session.id)?.bytes_up > old.bytes_up, "nothing was counted");
    Ok(())
}

#[test]
fn a_removed_session_is_served_no_more_also_after_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    node.weir(&["session", "remove", &added.session.id])?;
    ensure!(client.ping(SERVERS[0], 3).is_err(), "a removed session still has the internet");
    node.stop()?;
    node.restart()?;
    ensure!(node.session_list()?.is_empty(), "{:?}", node.session_list()?);
    ensure!(client.ping(SERVERS[0], 3).is_err(), "a removed session has the internet again");
    Ok(())
}
