use std::{fs, os::unix::fs::PermissionsExt as _, thread};

use super::*;

const NOW: u64 = 1_800_000_000;

fn good(at: u64) -> Measurement {
    Measurement { at, connect_ms: Some(80), seconds: 60, received: 1000, ..Measurement::default() }
}

fn bad(at: u64) -> Measurement {
    Measurement { at, failure: Some(Reason::NoHandshake), ..Measurement::default() }
}

#[test]
fn what_was_measured_is_read_again_and_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state/history.json");
    let file = HistoryFile::new(&path);
    assert_eq!(file.load().expect("none"), Measurements::default());
    for measurement in [good(NOW), bad(NOW + 1), good(NOW + 2)] {
        file.record("aa", measurement, NOW + 2).expect("written");
    }
    let all = file.load().expect("read");
    assert_eq!(all.of("aa").len(), 3);
    let experience = Experience {
        good: 2,
        bad: 1,
        last_failure: Some(Reason::NoHandshake),
        connect_ms: Some(80),
    };
    assert_eq!(History::of(&all, "aa"), Some(experience));
    assert_eq!(History::of(&all, "bb"), None);
    assert_eq!(all.share_good("aa", NOW + 1), Some(Share::from_thousandths(500)));
    assert_eq!(all.share_good("aa", NOW + 3), None);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_old_or_too_much_is_forgotten() {
    let mut all = Measurements::default();
    for age in (0..40).rev() {
        all.add("aa", good(NOW - age), NOW);
    }
    assert_eq!(all.of("aa").len(), MAX_PER_EXIT);
    assert_eq!(all.of("aa").first().map(|it| it.at), Some(NOW - 31));
    all.add("bb", bad(NOW), NOW + MAX_AGE - 31);
    assert_eq!(all.of("aa").len(), MAX_PER_EXIT);
    all.add("bb", bad(NOW), NOW + MAX_AGE + 1);
    assert!(all.of("aa").is_empty() && all.of("bb").is_empty());
    for number in 0..MAX_EXITS as u64 + 1 {
        all.0.insert(number.to_string(), vec![good(NOW + number)]);
    }
    all.forget(NOW);
    assert_eq!(all.0.len(), MAX_EXITS);
    assert!(all.of("0").is_empty() && !all.of("1").is_empty());
}

#[test]
fn a_file_that_is_cut_is_named_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.json");
    let file = HistoryFile::new(&path);
    file.record("aa", good(NOW), NOW).expect("written");
    let text = fs::read_to_string(&path).expect("there");
    let half = text.get(..text.len() / 2).expect("half");
    for wrong in [half, "", "{\"version\":2,\"exits\":{}}"] {
        fs::write(&path, wrong).expect("written");
        let error = file.record("bb", good(NOW), NOW).expect_err("it is damaged").to_string();
        assert!(error.contains("Fix: "), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), wrong);
    }
    // What a killed process left beside it does no harm.
    fs::write(&path, &text).expect("written");
    fs::write(directory.path().join("history.json.new"), "rubbish").expect("written");
    file.record("aa", good(NOW), NOW).expect("written");
    assert_eq!(file.load().expect("read").of("aa").len(), 2);
}

#[test]
fn two_processes_may_write_at_the_same_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = HistoryFile::new(&directory.path().join("history.json"));
    thread::scope(|scope| {
        for number in 0..8 {
            let file = file.clone();
            scope.spawn(move || file.record(&number.to_string(), good(NOW), NOW).expect("written"));
        }
    });
    assert_eq!(file.load().expect("read").0.len(), 8);
}
