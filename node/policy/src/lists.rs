//! The operator's lists, from the configuration and from files: one entry a line, and where each
//! came from.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;

use super::merge::{Networks, Ports};
use weir_config::{Policy, PortRule};

/// The maximum number of mistakes reported per load. A file in another format has one on every
/// line.
const MAX_REPORTED_MISTAKES: usize = 10;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which of [`Lists::sources`].
    source: u16,
    /// The line, from 1; 0 for a key of the configuration.
    line: u32,
}

/// An entry, and where it stands.
pub type Entry<T> = (T, Origin);

/// Every entry of every list.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Networks that may be reached although another list or a registry has them.
    pub allow: Vec<Entry<IpNet>>,
    /// Networks that may not be reached.
    pub block: Vec<Entry<IpNet>>,
    /// Ports that may not be reached.
    pub ports: Vec<Entry<PortRule>>,
    /// Keys and files, in the words of an operator.
    sources: Vec<String>,
}

/// Why lists cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A file cannot be read.
    #[error(
        "policy.{key}: cannot read {}: {problem}. Fix: put the file there, readable by weir, or \
         remove it from policy.{key}. weir cannot read a directory that held no list when it \
         started: restart it.", path.display()
    )]
    Read {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// Lines that are no entries.
    #[error("{}", summary(.0, *.1))]
    Mistakes(Vec<ListMistake>, usize),
}

/// A line that is no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListMistake {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what to write.
    pub problem: String,
}

impl fmt::Display for ListMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.problem)
    }
}

fn summary(reported: &[ListMistake], all: usize) -> String {
    let mut lines: Vec<String> = reported.iter().map(ToString::to_string).collect();
    if all > reported.len() {
        lines.push(format!("and {} more", all - reported.len()));
    }
    lines.join("\n")
}

impl Lists {
    /// Reads the lists that a configuration names.
    ///
    /// # Errors
    ///
    /// Names the file that cannot be read, or the first lines that are no entries.
    pub fn read(policy: &Policy) -> Result<Self, ListError> {
        let mut lists = Self::default();
        lists.allow = lists.of_key("allow", &policy.allow);
        lists.block = lists.of_key("block", &policy.block);
        lists.ports = lists.of_key("blocked_ports", &policy.blocked_ports);
        let mut mistakes = Mistakes::default();
        let (mut allow, mut block, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        lists.of_files("allow_files", &policy.allow_files, network, &mut allow, &mut mistakes)?;
        lists.of_files("block_files", &policy.block_files, network, &mut block, &mut mistakes)?;
        let files = &policy.blocked_port_files;
        lists.of_files("blocked_port_files", files, port, &mut ports, &mut mistakes)?;
        if mistakes.all > 0 {
            return Err(ListError::Mistakes(mistakes.reported, mistakes.all));
        }
        lists.allow.append(&mut allow);
        lists.block.append(&mut block);
        lists.ports.append(&mut ports);
        Ok(lists)
    }

    /// Reads the text of a list of networks to block, and of one of ports, as from files.
    ///
    /// # Errors
    ///
    /// Names the first lines that are no entries.
    pub fn of_texts(block: &[u8], ports: &[u8]) -> Result<Self, ListError> {
        let (mut lists, mut mistakes) = (Self::default(), Mistakes::default());
        let (mut blocked, mut blocked_ports) = (Vec::new(), Vec::new());
        lists.of_text(Path::new("block"), block, network, &mut blocked, &mut mistakes);
        lists.of_text(Path::new("ports"), ports, port, &mut blocked_ports, &mut mistakes);
        if mistakes.all > 0 {
            return Err(ListError::Mistakes(mistakes.reported, mistakes.all));
        }
        (lists.block, lists.ports) = (blocked, blocked_ports);
        Ok(lists)
    }

    /// `policy.block`, or `/etc/weir/block.txt:17`.
    #[must_use]
    pub fn name(&self, origin: Origin) -> String {
        let source = self.sources.get(usize::from(origin.source)).map_or("", String::as_str);
        if origin.line == 0 { source.to_owned() } else { format!("{source}:{}", origin.line) }
    }

    /// The networks that are allowed after all.
    #[must_use]
    pub fn allowed(&self) -> Networks {
        Networks::of(self.allow.iter().map(|(network, _)| *network))
    }

    /// The networks that are refused.
    #[must_use]
    pub fn blocked(&self) -> Networks {
        Networks::of(self.block.iter().map(|(network, _)| *network))
    }

    /// The ports that are refused.
    #[must_use]
    pub fn blocked_ports(&self) -> Ports {
        Ports::of(self.ports.iter().map(|(rule, _)| *rule))
    }

    fn of_key<T: Copy>(&mut self, key: &str, values: &[T]) -> Vec<Entry<T>> {
        let source = self.add_source(format!("policy.{key}"));
        values.iter().map(|value| (*value, Origin { source, line: 0 })).collect()
    }

    fn of_files<T>(
        &mut self,
        key: &'static str,
        files: &[PathBuf],
        parse: fn(&str) -> Result<T, String>,
        into: &mut Vec<Entry<T>>,
        mistakes: &mut Mistakes,
    ) -> Result<(), ListError> {
        for path in files {
            let read = |problem: String| ListError::Read { key, path: path.clone(), problem };
            let bytes = fs::read(path).map_err(|error| read(error.to_string()))?;
            self.of_text(path, &bytes, parse, into, mistakes);
        }
        Ok(())
    }

    fn of_text<T>(
        &mut self,
        path: &Path,
        bytes: &[u8],
        parse: fn(&str) -> Result<T, String>,
        into: &mut Vec<Entry<T>>,
        mistakes: &mut Mistakes,
    ) {
        // A comment may be in any encoding; an entry is not read from what is none.
        let text = String::from_utf8_lossy(bytes);
        // A byte order mark, which editors of Windows put there.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let source = self.add_source(path.display().to_string());
        for (number, line) in text.lines().enumerate() {
            let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            match parse(entry) {
                Ok(value) => {
                    let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
                    into.push((value, Origin { source, line }));
                }
                Err(problem) => mistakes.add(path, number + 1, problem),
            }
        }
    }

    fn add_source(&mut self, name: String) -> u16 {
        self.sources.push(name);
        u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX)
    }
}

#[derive(Default)]
struct Mistakes {
    reported: Vec<ListMistake>,
    all: usize,
}

impl Mistakes {
    fn add(&mut self, path: &Path, line: usize, problem: String) {
        self.all += 1;
        if self.reported.len() < MAX_REPORTED_MISTAKES {
            self.reported.push(ListMistake { path: path.to_owned(), line, problem });
        }
    }
}

/// A text from a file as it may stand in a message.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}{}", if short.len() < text.len() { "..." } else { "" })
}

fn network(text: &str) -> Result<IpNet, String> {
    let fix = "Fix: write an address or a network, such as 198.51.7.0/24 or 2001:db8:7::/48, one \
        a line; # begins a comment.";
    let parsed = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
    let network = parsed.map_err(|_| format!("{} is not a network. {fix}", quoted(text)))?;
    if network.prefix_len() == 0 {
        return Err(format!("{text} is every address. {fix}"));
    }
    Ok(network.trunc())
}

fn port(text: &str) -> Result<PortRule, String> {
    text.parse().map_err(|error| format!("{} is {error}. Fix: write one a line.", quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &str, ports: &str) -> Result<(Lists, tempfile::TempDir), ListError> {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("block"), folder.path().join("ports"));
        fs::write(&one, block).expect("written");
        fs::write(&two, ports).expect("written");
        let policy = Policy {
            block: vec!["8.8.8.8/32".parse().expect("a network")],
            block_files: vec![one],
            blocked_port_files: vec![two],
            ..Policy::default()
        };
        Ok((Lists::read(&policy)?, folder))
    }

    #[test]
    fn entries_know_their_lines() {
        let block = "# a list\n\n 198.51.7.9/24 # host bits\n2a00::1;x\n; no entry\n9.9.9.9\r\n";
        let (lists, folder) = read(block, "6881-6999/udp\n").expect("right lists");
        let shown: Vec<String> = lists
            .block
            .iter()
            .map(|(network, origin)| format!("{network} {}", lists.name(*origin)))
            .collect();
        let file = folder.path().join("block").display().to_string();
        let at = |entry: &str, line: u32| format!("{entry} {file}:{line}");
        assert_eq!(
            shown,
            [
                "8.8.8.8/32 policy.block".to_owned(),
                at("198.51.7.0/24", 3),
                at("2a00::1/128", 4),
                at("9.9.9.9/32", 6)
            ]
        );
        assert_eq!(lists.blocked_ports().tcp, [(25, 25)]);
        assert_eq!(lists.blocked_ports().udp, [(6881, 6999)]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let (lists, _folder) =
            read("\u{feff}198.51.7.0/24\r\n", "\u{feff}25/tcp\r\n").expect("right lists");
        assert_eq!(lists.block[1].0, "198.51.7.0/24".parse().expect("a network"));
        assert_eq!(lists.blocked_ports().tcp, [(25, 25)]);
        let error = read("1.1.1.1\n\u{feff}1.1.1.1\n", "").expect_err("not at the start");
        assert!(error.to_string().contains("block:2: "), "{error}");
    }

    #[test]
    fn lines_that_are_no_entries_are_named_and_nothing_is_taken() {
        let error = read("1.1.1.1\n1.2.3\n::/0\n", "25/sctp\n").expect_err("three mistakes");
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("block:2: \"1.2.3\" is not a network. Fix: "), "{text}");
        assert!(lines[1].contains("block:3: ::/0 is every address"), "{text}");
        assert!(lines[2].contains("ports:1: \"25/sctp\" is not ports"), "{text}");
        let many = read(&"x\n".repeat(1000), "").expect_err("mistakes").to_string();
        assert!(many.ends_with("and 990 more"), "{many}");
        assert!(
            read(&format!("{}\n", "x".repeat(99_999)), "").expect_err("no").to_string().len() < 400
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_key() {
        let policy = Policy { allow_files: vec!["/nowhere/list".into()], ..Policy::default() };
        let error = Lists::read(&policy).expect_err("no file").to_string();
        assert!(error.starts_with("policy.allow_files: cannot read /nowhere/list: "), "{error}");
    }
}
