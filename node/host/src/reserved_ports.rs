//! The node's external ports, which the kernel must not choose for programs of the host: their
//! sockets would get nothing of what is sent to them.
//!
//! The parameter is one for all who reserve ports. Others' ports stay in it, whenever they come.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::journal::{Change, UndoJournal};

/// The parameter, below /proc/sys.
pub(super) const PARAMETER: &str = "net/ipv4/ip_local_reserved_ports";

/// Reserves the ports from the first to the last. What a killed run has reserved is taken over, or
/// released.
pub(super) fn reserve(journal: &mut UndoJournal, (first, last): (u16, u16)) -> io::Result<()> {
    for change in journal.take_recovered_ports((first, last)) {
        if let Change::ReservedPorts { first, last, before } = change {
            release((first, last), &before)?;
        }
    }
    let now = Ports::read()?;
    if now.has_all(first, last) && !journal.has_recovered_ports((first, last)) {
        return Ok(());
    }
    let before = now.within(first, last).to_string();
    journal.record(Change::ReservedPorts { first, last, before })?;
    now.with(first, last).write()
}

/// Reserves the ports again if somebody has changed that; whether somebody had.
pub(super) fn put_back((first, last): (u16, u16)) -> io::Result<bool> {
    let now = Ports::read()?;
    if now.has_all(first, last) {
        return Ok(false);
    }
    now.with(first, last).write()?;
    Ok(true)
}

/// Releases the ports but those that were reserved before.
pub(super) fn release((first, last): (u16, u16), before: &str) -> io::Result<()> {
    let now = match Ports::read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        now => now?,
    };
    let mut after = now.clone();
    after.set(first, last, false);
    for (first, last) in Ports::parse(before)?.ranges() {
        after.set(first, last, true);
    }
    if after == now { Ok(()) } else { after.write() }
}

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
struct Ports(Vec<bool>);

impl Ports {
    fn none() -> Self {
        Self(vec![false; 1 << 16])
    }

    fn read() -> io::Result<Self> {
        let file = File::open(path())?;
        // The kernel writes the whole list at the first read or never, and cuts off what has no room.
        let mut buffer = vec![0; 1 << 12];
        let mut len = file.read_at(&mut buffer, 0)?;
        if len >= buffer.len() {
            // Every other port: 32768 of them, with a comma each.
            buffer.resize(1 << 18, 0);
            len = file.read_at(&mut buffer, 0)?;
        }
        Self::parse(&String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()))
    }

    fn write(&self) -> io::Result<()> {
        // Without a byte nothing would be written, and the old list would stay.
        fs::write(path(), format!("{self}\n")).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot set /proc/sys/{PARAMETER}: {error}"))
        })
    }

    /// Reads what the kernel writes: `8080,10000-20000`.
    fn parse(text: &str) -> io::Result<Self> {
        let mut ports = Self::none();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else {
                let problem = format!("{part:?} in /proc/sys/{PARAMETER} is no range of ports");
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            };
            ports.set(first, last, true);
        }
        Ok(ports)
    }

    fn set(&mut self, first: u16, last: u16, is_in: bool) {
        if let Some(range) = self.0.get_mut(usize::from(first)..=usize::from(last)) {
            range.fill(is_in);
        }
    }

    fn with(mut self, first: u16, last: u16) -> Self {
        self.set(first, last, true);
        self
    }

    fn has_all(&self, first: u16, last: u16) -> bool {
        let range = self.0.get(usize::from(first)..=usize::from(last));
        range.is_none_or(|range| range.iter().all(|is_in| *is_in))
    }

    fn within(&self, first: u16, last: u16) -> Self {
        let mut within = Self::none();
        for (low, high) in self.ranges() {
            let (low, high) = (low.max(first), high.min(last));
            if low <= high {
                within.set(low, high, true);
            }
        }
        within
    }

    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (port, _) in (0..=u16::MAX).zip(&self.0).filter(|(_, is_in)| **is_in) {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

fn path() -> std::path::PathBuf {
    Path::new("/proc/sys").join(PARAMETER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::{self, tests::in_a_namespace};

    fn ports(text: &str) -> Ports {
        Ports::parse(text).expect("a list of ports")
    }

    #[test]
    fn a_list_comes_out_as_it_went_in() {
        for text in ["", "22", "1-65535", "22,80-81,443", "0,65535"] {
            assert_eq!(ports(text).to_string(), text);
        }
        assert_eq!(ports("80,81,79\n").to_string(), "79-81");
        for wrong in ["x", "1-", "70000", "1,,x"] {
            assert!(Ports::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_is_cut_out_and_put_in() {
        let all = ports("22,4000-5000,40000");
        assert_eq!(all.within(4096, 32767).to_string(), "4096-5000");
        assert!(all.has_all(4096, 5000) && !all.has_all(4096, 5001));
        assert_eq!(all.with(4096, 32767).to_string(), "22,4000-32767,40000");
    }

    fn open(directory: &tempfile::TempDir) -> UndoJournal {
        UndoJournal::open(directory.path(), None).expect("opened")
    }

    fn undo(mut journal: UndoJournal) {
        crate::undo::roll_back(&mut journal, crate::undo::Files::Remove).expect("undone");
    }

    fn now() -> String {
        Ports::read().expect("read").to_string()
    }

    #[test]
    fn a_killed_runs_ports_are_released_and_the_operators_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        in_a_namespace(&format!("wreserved{}", std::process::id()), || {
            // Longer than the first read.
            let operators: Vec<String> =
                (0..1000).map(|it| (20_000 + 2 * it).to_string()).collect();
            let operators = format!("22,5000,{},60000", operators.join(","));
            assert!(operators.len() > 1 << 12);
            ports(&operators).write().expect("written");
            for _ in 0..2 {
                // The first run is killed, as far as its list of changes can tell.
                reserve(&mut open(&directory), (4096, 32767)).expect("reserved");
                assert_eq!(now(), "22,4096-32767,60000");
            }
            // The next one has other ports.
            let mut journal = open(&directory);
            reserve(&mut journal, (10_000, 10_999)).expect("reserved");
            assert!(now().starts_with("22,5000,10000-10999,20000,20002,"), "{}", now());
            undo(journal);
            assert_eq!(now(), operators);
        });
    }

    #[test]
    fn what_somebody_reserves_meanwhile_stays_and_nothing_else_does() {
        let directory = tempfile::tempdir().expect("a directory");
        in_a_namespace(&format!("wreserved2{}", std::process::id()), || {
            let mut journal = open(&directory);
            reserve(&mut journal, (4096, 32767)).expect("reserved");
            assert!(!put_back((4096, 32767)).expect("read"));
            sysctl::write(PARAMETER, "61000").expect("written");
            assert!(put_back((4096, 32767)).expect("put back"));
            assert_eq!(now(), "4096-32767,61000");
            undo(journal);
            assert_eq!(now(), "61000");
            sysctl::write(PARAMETER, "1-65535").expect("written");
            let mut journal = open(&directory);
            reserve(&mut journal, (4096, 32767)).expect("nothing to do");
            undo(journal);
            assert_eq!(now(), "1-65535");
            ports("").write().expect("emptied");
            assert_eq!(now(), "");
        });
    }
}
