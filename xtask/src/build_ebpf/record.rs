//! The text beside the object: what it was built from and with.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Tells a difference by the toolchain from a difference by the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The object's file name.
    pub(crate) name: String,
    /// rustc's and the linker's version.
    pub(crate) toolchain: String,
    /// SHA-256 over all that is compiled.
    pub(crate) sources: String,
    /// SHA-256 of the object.
    pub(crate) object: String,
}

impl Record {
    /// The record of the object that is committed at `path`.
    pub(crate) fn new(root: &Path, path: &str, toolchain: String, object: &[u8]) -> Result<Self> {
        let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Self {
            name: name.to_owned(),
            toolchain,
            sources: sha256(&sources(root)?)?,
            object: sha256(object)?,
        })
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let (name, _) = text.split_once(" is compiled from ")?;
        Some(Self {
            name: name.to_owned(),
            toolchain: field("toolchain")?,
            sources: field("sources")?,
            object: field("object")?,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} is compiled from node-ebpf and node-common: cargo xtask build-ebpf",
            self.name
        )?;
        writeln!(f, "toolchain: {}", self.toolchain)?;
        writeln!(f, "sources: {}", self.sources)?;
        writeln!(f, "object: {}", self.object)
    }
}

/// Everything that the object is made from, one after the other in the order of the paths.
fn sources(root: &Path) -> Result<Vec<u8>> {
    let mut files = vec!["node-ebpf/Cargo.toml".into(), "node-ebpf/Cargo.lock".into()];
    for directory in ["node-common/src", "node-ebpf/src"] {
        collect(root, Path::new(directory), &mut files)?;
    }
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        let content =
            fs::read(root.join(&file)).with_context(|| format!("read {}", file.display()))?;
        bytes.extend(format!("{} {}\n", file.display(), content.len()).into_bytes());
        bytes.extend(content);
    }
    Ok(bytes)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(root.join(directory))
        .with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

pub(crate) fn sha256(bytes: &[u8]) -> Result<String> {
    use std::{io::Write as _, process::Stdio};

    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run sha256sum")?;
    child.stdin.take().context("sha256sum has no input")?.write_all(bytes)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sha256sum failed");
    let text = String::from_utf8(output.stdout).context("sha256sum's answer is no text")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
