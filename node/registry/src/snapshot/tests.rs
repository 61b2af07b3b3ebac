use std::{fs, os::unix::fs::PermissionsExt as _};

use nostr::key::Keys;
use weir_market::{
    event::{REPORT, SEALED},
    key::MarketKey,
};

use super::*;
use crate::{
    registry::{Now, Rules},
    testing::{NOW, deletion, event, listed},
};

fn filled() -> Registry {
    let registry = Registry::new(Rules { keys_per_network: 100, ..Rules::default() });
    let keys = Keys::generate();
    let network = std::net::IpAddr::from([192, 0, 2, 1]).into();
    for event in [
        listed(&MarketKey::random(), "DE", "1 sat/GiB", NOW),
        listed(&MarketKey::random(), "FR", "1 sat/GiB", NOW),
        deletion(&keys, "weir", NOW),
        event(&keys, REPORT, &[], NOW),
        event(&keys, SEALED, &[&["p", "node"]], NOW - 3600),
    ] {
        let now = Now { unix: NOW, tick: 1 << 40 };
        assert_eq!(registry.publish(&event, network, now), Ok(()));
    }
    registry
}

fn empty() -> Registry {
    Registry::new(Rules::default())
}

#[test]
fn what_was_stored_is_stored_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    let registry = filled();
    assert_eq!(read(&path, &empty(), NOW).expect("no file"), Restored::default());
    assert_eq!(write(&path, &registry).expect("written"), 5);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = empty();
    let restored = read(&path, &again, NOW + 60).expect("read");
    assert_eq!(restored, Restored { events: 5, left_out: 0 });
    assert_eq!(again.all(), registry.all());
    // Listings expire after three hours.
    let later = read(&path, &empty(), NOW + 4 * 3600).expect("read");
    assert_eq!(later, Restored { events: 3, left_out: 2 });
}

#[test]
fn damaged_and_forged_lines_are_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    write(&path, &filled()).expect("written");
    let text = fs::read_to_string(&path).expect("text");
    assert!(text.contains("\"FR\""), "{text}");
    let mut forged = text.replace("\"FR\"", "\"DE\"");
    forged.push_str("rubbish\n1800000100 {}\n\u{fffd}\n");
    fs::write(&path, forged).expect("written");
    let restored = read(&path, &empty(), NOW).expect("read");
    assert_eq!(restored, Restored { events: 4, left_out: 4 });
}

#[test]
fn another_file_is_not_read_and_an_old_one_stays_when_a_new_one_cannot_be_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    fs::write(&path, "[Interface]\n").expect("written");
    assert!(matches!(read(&path, &empty(), NOW), Err(SnapshotError::Other(_))));
    let error = write(&directory.path().join("no/snapshot"), &filled()).expect_err("no directory");
    assert!(error.to_string().contains("--snapshot"), "{error}");
}
