//! What was fetched before, in the user's cache directory: signed events, one a line.
//!
//! Only the user can write there, so signatures are not verified again when it is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, OpenOptions},
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nostr::event::Event;
use serde::{Deserialize, Serialize};

use super::{Offer, View};
use crate::{
    attestation::WatcherKey,
    event::{ATTESTATION, DELETION, LISTING, SignedAttestation, SignedListing, deleted},
};

/// The largest cache that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// The format of the file.
const VERSION: u32 = 1;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the cache of listings {path}: {source}. Fix: remove it, or use --no-cache")]
pub struct CacheError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The file in the cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The newest event of each registry.
    newest: BTreeMap<String, u64>,
    /// The watchers for whose attestations each registry was asked.
    #[serde(default)]
    asked: BTreeMap<String, BTreeSet<WatcherKey>>,
}

/// Every other line.
#[derive(Serialize, Deserialize)]
struct Line {
    event: Event,
    registries: BTreeSet<String>,
}

impl Cache {
    /// The cache in this directory, which need not exist.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("listings.ndjson")
    }

    /// Reads what counts at `now`. What cannot be understood is left out, as if it had not been
    /// fetched yet.
    ///
    /// # Errors
    ///
    /// When there is a file that cannot be read.
    pub fn load(&self, now: u64) -> Result<View, CacheError> {
        let path = self.path();
        let failed = |source| CacheError { doing: "read", path: self.path(), source };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(View::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        let mut lines = text.lines();
        let head = lines.next().and_then(|line| serde_json::from_str::<Head>(line).ok());
        let Some(head) = head.filter(|head| head.version == VERSION) else {
            return Ok(View::default());
        };
        let mut view = View { newest: head.newest, asked: head.asked, ..View::default() };
        for line in lines {
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                // Something of it is lost: everything is fetched again.
                view.newest.clear();
                view.asked.clear();
                continue;
            };
            restore(&mut view, line);
        }
        view.forget_expired(now);
        Ok(view)
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// When it cannot be written. The old one is still there then.
    pub fn store(&self, view: &View) -> Result<(), CacheError> {
        let failed =
            |doing| move |source| CacheError { doing, path: self.directory.clone(), source };
        let mut directory = DirBuilder::new();
        directory.recursive(true).mode(0o700).create(&self.directory).map_err(failed("make"))?;
        let temporary = self.directory.join(format!("listings.{}.new", std::process::id()));
        let written = write(&temporary, view).and_then(|()| fs::rename(&temporary, self.path()));
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written.map_err(failed("write"))
    }
}

fn restore(view: &mut View, line: Line) {
    let Line { event, registries } = line;
    match event.kind.as_u16() {
        LISTING => {
            let Ok(signed) = SignedListing::read(event) else { return };
            view.offers.insert(signed.address(), Offer { signed, registries });
        }
        ATTESTATION => {
            let Ok(signed) = SignedAttestation::read(event) else { return };
            let of_exit = view.attestations.entry(signed.attestation.exit.clone());
            of_exit.or_default().insert(signed.watcher(), signed);
        }
        DELETION => {
            for address in deleted(&event).addresses {
                view.deletions.insert(address, event.clone());
            }
        }
        _ => {}
    }
}

fn write(path: &Path, view: &View) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut file = BufWriter::new(file);
    let mut put = |line: serde_json::Result<String>| writeln!(file, "{}", line?);
    let (newest, asked) = (view.newest.clone(), view.asked.clone());
    put(serde_json::to_string(&Head { version: VERSION, newest, asked }))?;
    for offer in view.offers.values() {
        let (event, registries) = (offer.signed.event.clone(), offer.registries.clone());
        put(serde_json::to_string(&Line { event, registries }))?;
    }
    let mut written = BTreeSet::new();
    for event in view.deletions.values() {
        if written.insert(event.id) {
            let registries = BTreeSet::new();
            put(serde_json::to_string(&Line { event: event.clone(), registries }))?;
        }
    }
    for signed in view.attestations.values().flat_map(BTreeMap::values) {
        let registries = BTreeSet::new();
        put(serde_json::to_string(&Line { event: signed.event.clone(), registries }))?;
    }
    file.flush()
}
