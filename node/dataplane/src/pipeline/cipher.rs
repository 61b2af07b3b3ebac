//! The cipher of the workers: on their own cores, and for long runs of messages also on those of
//! helpers. One session can then have more than one core carries. Only keys and texts are shared, so
//! the order of packets, the replay window and the bill stay with the session's worker.

use std::{io, sync::Arc};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::start::pin;
use weir_wireguard::aead::{Open, Path, Seal, open_batch, seal_batch};

/// The number of messages that one core takes together. More plaintext than that would not stay in
/// the processor's first cache until it is looked at.
pub(crate) const GROUP: usize = 16;
/// The number of messages that are taken together with helpers: enough to make up for waking them.
const SHARED_GROUP: usize = 256;
/// Fewer messages than this are not worth waking a helper.
const MIN_SHARED: usize = 40;

/// The cipher, and who helps with it.
#[derive(Clone)]
pub struct Cipher {
    path: Path,
    helpers: Option<Arc<ThreadPool>>,
}

impl From<Path> for Cipher {
    fn from(path: Path) -> Self {
        Self { path, helpers: None }
    }
}

impl Cipher {
    /// With a helper on each of `cores`. Without cores there is none.
    ///
    /// # Errors
    ///
    /// Fails if a thread cannot be created.
    pub fn with_helpers(path: Path, cores: Vec<usize>) -> io::Result<Self> {
        if cores.is_empty() {
            return Ok(path.into());
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(cores.len())
            .thread_name(|number| format!("weir-cipher-{number}"))
            .start_handler(move |number| pin(cores.get(number).copied()))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { path, helpers: Some(Arc::new(pool)) })
    }

    /// The number of messages to take together.
    pub(crate) fn group(&self) -> usize {
        if self.helpers.is_some() { SHARED_GROUP } else { GROUP }
    }

    /// Opens all messages.
    #[inline]
    pub(super) fn open(&self, jobs: &mut [Open<'_>]) {
        self.share(jobs, |group| open_batch(self.path, group));
    }

    /// Seals all messages.
    #[inline]
    pub(super) fn seal(&self, jobs: &mut [Seal<'_>]) {
        self.share(jobs, |group| seal_batch(self.path, group));
    }

    #[inline]
    fn share<T: Send>(&self, jobs: &mut [T], work: impl Fn(&mut [T]) + Sync) {
        match &self.helpers {
            Some(pool) if jobs.len() >= MIN_SHARED => share(pool, jobs, &work),
            _ => jobs.chunks_mut(GROUP).for_each(work),
        }
    }
}

/// Gives each helper an equal part of the work, and does one itself meanwhile.
fn share<T: Send>(pool: &ThreadPool, jobs: &mut [T], work: &(impl Fn(&mut [T]) + Sync)) {
    let parts = pool.current_num_threads() + 1;
    let (own, others) = jobs.split_at_mut(jobs.len().div_ceil(parts));
    let len = own.len().max(1);
    pool.in_place_scope(|scope| {
        for part in others.chunks_mut(len) {
            scope.spawn(move |_| part.chunks_mut(GROUP).for_each(work));
        }
        own.chunks_mut(GROUP).for_each(work);
    });
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_job_is_done_once_and_long_runs_on_all_threads() {
        let cipher = Cipher::with_helpers(Path::RING, vec![0, 1]).expect("threads");
        assert_eq!((cipher.group(), Cipher::from(Path::RING).group()), (SHARED_GROUP, GROUP));
        let own = thread::current().id();
        for len in [0, 1, MIN_SHARED - 1, MIN_SHARED, SHARED_GROUP, SHARED_GROUP + 1] {
            let mut jobs = vec![(0, None); len];
            cipher.share(&mut jobs, |group| {
                assert!(group.len() <= GROUP);
                for job in group {
                    *job = (job.0 + 1, Some(thread::current().id()));
                }
            });
            assert!(jobs.iter().all(|job| job.0 == 1), "each of {len} once");
            let others = jobs.iter().filter(|job| job.1 != Some(own)).count();
            let is_shared = len >= MIN_SHARED;
            assert_eq!(others, if is_shared { len - len.div_ceil(3) } else { 0 });
        }
    }
}
