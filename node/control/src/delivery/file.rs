//! Usage records appended to a file, one JSON object a line.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::Receiver;
use weir_ledger::UsageRecord;

/// Its name in the ledger.
pub const NAME: &str = "file";

/// The maximum length of a line, in bytes.
const MAX_LINE: u64 = 16 * 1024;

/// A file that is renamed away when it has grown to a limit: `usage.ndjson` becomes
/// `usage.ndjson.CURSOR`, with the cursor of its last record.
#[derive(Debug)]
pub struct UsageFile {
    path: PathBuf,
    max_bytes: u64,
    file: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// The cursor of the last record in it, or in the one before.
    last: u64,
}

impl UsageFile {
    /// The file at `path`, renamed away once it has `max_bytes` bytes.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes, file: None }
    }

    /// Appends what is not there yet. After a crash the file may have more than the ledger knows
    /// of, and its last line may be broken off.
    fn append(&mut self, batch: &[UsageRecord]) -> anyhow::Result<()> {
        let mut open = match self.file.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        let mut text = Vec::new();
        for record in batch.iter().filter(|record| record.cursor > open.last) {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        open.file.write_all(&text)?;
        open.file.sync_data()?;
        open.len += text.len() as u64;
        open.last = batch.last().map_or(open.last, |record| record.cursor.max(open.last));
        if open.len >= self.max_bytes {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{}", open.last));
            fs::rename(&self.path, &name).context("cannot rename it")?;
            open = Open::at(&self.path)?;
        }
        self.file = Some(open);
        Ok(())
    }
}

impl Open {
    /// Opens the file, and cuts off a last line that is not whole.
    fn at(path: &Path) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .context("cannot open it")?;
        let len = file.metadata()?.len();
        let start = len.saturating_sub(2 * MAX_LINE);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        (&mut file).take(2 * MAX_LINE).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let len = start + whole as u64;
        file.set_len(len)?;
        let line = tail.get(..whole.saturating_sub(1)).unwrap_or_default();
        let line = line.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let last = serde_json::from_slice::<UsageRecord>(line).map_or(0, |record| record.cursor);
        Ok(Self { file, len, last: last.max(renamed_away(path)) })
    }
}

/// The highest cursor in the names of the files that were renamed away.
fn renamed_away(path: &Path) -> u64 {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return 0 };
    let before = format!("{}.", name.to_string_lossy());
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.file_name());
    names
        .filter_map(|name| name.to_string_lossy().strip_prefix(&before)?.parse().ok())
        .max()
        .unwrap_or(0)
}

impl Receiver for UsageFile {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take(&mut self, batch: &[UsageRecord]) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| self.append(batch))
            .with_context(|| format!("the usage file {}", self.path.display()))
    }
}
