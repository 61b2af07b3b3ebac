//! The process that looks names up, and the lines that it and the node exchange.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, ToSocketAddrs as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use super::servers;

/// Stands for a name when the machine's name servers are asked for. No host has it.
pub(super) const NAME_SERVERS: &str = "*";

/// The longest line that is taken, in bytes: names have 253 characters at most (RFC 1035).
const MAX_LINE: u64 = 1024;

/// Answers what the node asks on standard input, which is a socket, until the node is gone.
///
/// # Errors
///
/// When it was not started by a node.
pub fn serve(confine: impl FnOnce() -> FileAccess) -> anyhow::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let access = confine();
    answer_all(stream, access, |host| {
        if host == NAME_SERVERS {
            return Ok(servers::read()?.0);
        }
        let found = (host, 0).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    })?;
    Ok(())
}

/// Says which files the process can read, then answers line by line.
pub(super) fn answer_all(
    stream: UnixStream,
    access: FileAccess,
    lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    writeln!(writer, "{access}")?;
    loop {
        let mut line = String::new();
        let len = io::Read::take(&mut reader, MAX_LINE).read_line(&mut line)?;
        let Some(question) = Question::parse(&line).filter(|_| len > 0) else { return Ok(()) };
        let found = lookup(question.host).map_err(|error| error.to_string());
        writeln!(writer, "{}", Answer { number: question.number, found })?;
    }
}

/// The files of name lookups that the process can still read in its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// All of them, and files that replace them later.
    All,
    /// Only the files that exist now, not their replacements.
    Existing,
}

impl FileAccess {
    pub(super) fn parse(line: &str) -> Option<Self> {
        match line.trim_end() {
            "all" => Some(Self::All),
            "existing" => Some(Self::Existing),
            _ => None,
        }
    }

    pub(super) fn is_all(self) -> bool {
        self == Self::All
    }
}

impl fmt::Display for FileAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_all() { "all" } else { "existing" })
    }
}

/// A name to look up, with a number that its answer has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    pub(super) number: u64,
    pub(super) host: &'a str,
}

impl<'a> Question<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (number, host) = line.trim_end_matches('\n').split_once(' ')?;
        Some(Self { number: number.parse().ok()?, host })
    }
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line break in it would be another question.
        write!(f, "{} {}", self.number, self.host.replace(['\n', '\r'], ""))
    }
}

/// What was found, or why nothing was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) found: Result<Vec<IpAddr>, String>,
}

impl Answer {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim_end().splitn(3, ' ');
        let number = words.next()?.parse().ok()?;
        let is_found = words.next()? == "found";
        let rest = words.next().unwrap_or_default();
        let found = match is_found {
            true => Ok(rest.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?),
            false => Err(rest.to_owned()),
        };
        Some(Self { number, found })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Ok(addresses) => {
                write!(f, "{} found", self.number)?;
                addresses.iter().try_for_each(|address| write!(f, " {address}"))
            }
            Err(error) => write!(f, "{} failed {}", self.number, error.replace('\n', " ")),
        }
    }
}
