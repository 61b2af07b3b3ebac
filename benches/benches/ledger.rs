//! What a checkpoint of the ledger costs when every session has changed.

use std::{fs, hint::black_box, path::Path};

use criterion::{Criterion, criterion_group, criterion_main};
use weir_common::{
    Slot,
    account::{Counters, SessionState},
};
use weir_ledger::{Ledger, Session, SessionId, credit::Extra};
use weir_wireguard::keys::PrivateKey;

const SESSIONS: u32 = 10_000;

/// A ledger on the disk with sessions in it. They are written to memory first: each of them waits
/// for the disk.
fn ledger(folder: &Path) -> (Ledger, Vec<SessionId>) {
    let memory = ["/dev/shm", "/tmp"].into_iter().find(|path| Path::new(path).is_dir());
    let memory = tempfile::tempdir_in(memory.expect("a directory")).expect("a directory");
    let mut ledger = Ledger::open(&memory.path().join("ledger.db")).expect("opened");
    let public_key = |_: u32| PrivateKey::random().public();
    for slot in 0..SESSIONS {
        let session = Session {
            id: SessionId::random(),
            slot: Slot(slot),
            name: None,
            public_key: public_key(slot),
            created: 1_700_000_000,
            state: SessionState::Open,
        };
        ledger.insert(&session, &Extra::default()).expect("inserted");
    }
    drop(ledger);
    for name in ["ledger.db", "receipt.key"] {
        fs::copy(memory.path().join(name), folder.join(name)).expect("copied");
    }
    let mut ledger = Ledger::open(&folder.join("ledger.db")).expect("opened");
    let ids = ledger.live().expect("read").into_iter().map(|(session, _)| session.id).collect();
    (ledger, ids)
}

fn checkpoints(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a directory");
    let (mut ledger, ids) = ledger(folder.path());
    let mut bytes = 0;
    criterion.bench_function("checkpoint of 10,000 changed sessions", |bencher| {
        bencher.iter(|| {
            bytes += 1500;
            let counters = Counters { bytes_up: bytes, bytes_down: bytes, ..Counters::default() };
            let changed: Vec<_> = ids.iter().map(|id| (*id, counters)).collect();
            ledger.checkpoint(black_box(&changed)).expect("written");
        });
    });
}

criterion_group! {
    name = ledger_group;
    config = Criterion::default().sample_size(20);
    targets = checkpoints
}
criterion_main!(ledger_group);
