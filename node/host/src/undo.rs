//! Undoes the changes in the [undo journal](super::journal).

use std::{fs, io};

use super::{
    deferral, ethtool,
    journal::{Change, UndoJournal},
    link, nft, reserved_ports, sysctl,
};

/// What becomes of the files that the journal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// They are removed.
    Remove,
    /// They stay for the next run: when this one fails, the counters that are pinned in them must
    /// outlive it.
    Keep,
}

/// Undoes what an earlier run left and this one did not make again.
///
/// # Errors
///
/// Says what could not be undone; that stays in the journal.
pub(super) fn roll_back_recovered(journal: &mut UndoJournal) -> Result<(), Vec<String>> {
    let (remaining, errors) = undo_each(journal.take_recovered());
    write(journal, remaining, errors)
}

/// Turns off what an earlier run turned on to have the kernel forward, before all else that it left.
///
/// # Errors
///
/// Says what could not be undone; that stays in the journal.
pub(super) fn roll_back_forwarding(journal: &mut UndoJournal) -> Result<(), Vec<String>> {
    let is_forwarding = |change: &Change| matches!(change, Change::Sysctl { .. });
    let (forwarding, mut kept): (Vec<_>, Vec<_>) =
        journal.take_recovered().into_iter().partition(is_forwarding);
    let (remaining, errors) = undo_each(forwarding);
    kept.extend(remaining);
    write(journal, kept, errors)
}

/// Undoes all changes, the last one first.
///
/// # Errors
///
/// Says what could not be undone; that stays in the journal for the next run.
pub(super) fn roll_back(journal: &mut UndoJournal, files: Files) -> Result<(), Vec<String>> {
    let is_kept = |change: &Change| files == Files::Keep && matches!(change, Change::File { .. });
    let (mut kept, undone): (Vec<_>, Vec<_>) = journal.take_all().into_iter().partition(is_kept);
    let (remaining, errors) = undo_each(undone);
    kept.extend(remaining);
    write(journal, kept, errors)
}

fn write(
    journal: &mut UndoJournal,
    remaining: Vec<Change>,
    mut errors: Vec<String>,
) -> Result<(), Vec<String>> {
    if let Err(error) = journal.keep(remaining) {
        errors.push(format!("cannot write {}: {error}", journal.directory().display()));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Undoes changes, the last one first; returns those that could not be undone, and why.
fn undo_each(changes: Vec<Change>) -> (Vec<Change>, Vec<String>) {
    let mut errors = Vec::new();
    let mut remaining = Vec::new();
    for change in changes.into_iter().rev() {
        if let Err(error) = undo(&change) {
            errors.push(error);
            remaining.push(change);
        }
    }
    remaining.reverse();
    (remaining, errors)
}

fn undo(change: &Change) -> Result<(), String> {
    match change {
        Change::Sysctl { parameter, old, set } => undo_sysctl(parameter, old, set.as_deref()),
        Change::ReservedPorts { first, last, before } => {
            reserved_ports::release((*first, *last), before)
                .map_err(|error| format!("cannot release the ports {first}-{last}: {error}"))
        }
        Change::Feature { interface, feature, old } => {
            match ethtool::set_feature(interface, feature, *old) {
                Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                    let state = if *old { "on" } else { "off" };
                    Err(format!("cannot turn {feature} of {interface} {state}: {error}"))
                }
                _ => Ok(()),
            }
        }
        Change::Deferral { interface, old } => deferral::restore(interface, *old)
            .map_err(|error| format!("cannot undo how {interface} interrupts: {error:#}")),
        Change::Policy => nft::remove().map_err(|error| error.to_string()),
        Change::Link { name } => link::remove(name)
            .map_err(|error| format!("cannot remove the interface {name}: {error}")),
        Change::File { path } => {
            let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(format!("cannot remove {}: {error}", path.display()))
                }
                _ => Ok(()),
            }
        }
    }
}

fn undo_sysctl(parameter: &str, old: &str, set: Option<&str>) -> Result<(), String> {
    let now = match sysctl::read(parameter) {
        // The interface that it belonged to is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        now => now.map_err(|error| format!("cannot read /proc/sys/{parameter}: {error}"))?,
    };
    if now == old || set.is_some_and(|set| set != now) {
        return Ok(());
    }
    if set.is_some() && sysctl::is_forwarding_everywhere_since(parameter) {
        return Ok(());
    }
    sysctl::write(parameter, old).map_err(|error| format!("cannot undo a change: {error}"))
}
