//! Which events are stored, and for how long: the rules that need neither a network nor the store.

use nostr::event::Event;
use weir_market::event::{
    ATTESTATION, ATTESTATION_LIFETIME, CURATION, DELETION, LISTING, MAX_AHEAD, MAX_EVENT_BYTES,
    REPORT, SEALED, SignedAttestation, SignedListing, deleted, expiration, work,
};

use crate::refusal::Refusal;

/// The maximum age of an event that is published here, in seconds.
pub const MAX_PUBLISHED_AGE: u64 = 15 * 60;
/// The maximum age of a letter (NIP-59: its time is up to two days wrong on purpose), in seconds.
pub const MAX_LETTER_AGE: u64 = 2 * 24 * 3600;
/// The longest life of a listing, in seconds.
pub const MAX_LISTING_LIFE: u64 = 24 * 3600;
/// How long a letter is kept, in seconds.
pub const LETTER_LIFE: u64 = 24 * 3600;
/// How long what people say about listings is kept, in seconds.
pub const OPINION_LIFE: u64 = 7 * 24 * 3600;
/// The maximum number of tags.
pub const MAX_TAGS: usize = 128;

/// The kinds that are stored.
pub const KINDS: [u16; 6] = [LISTING, DELETION, ATTESTATION, CURATION, REPORT, SEALED];
/// The kinds that peers copy from each other: all but letters, which concern one node alone.
pub const COPIED_KINDS: [u16; 5] = [LISTING, DELETION, ATTESTATION, CURATION, REPORT];

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Someone publishes it here.
    Published,
    /// A peer or the snapshot has it: it was published elsewhere, or before.
    Copied,
}

/// The maximum number of events of one key.
#[must_use]
pub const fn max_per_key(kind: u16) -> usize {
    match kind {
        LISTING => 16,
        CURATION => 8,
        DELETION => 64,
        REPORT => 256,
        ATTESTATION => 4096,
        _ => 64,
    }
}

/// How long an event of this kind is kept after its creation at most, in seconds. A deletion is kept
/// for as long as what it deletes could be.
const fn life(kind: u16) -> u64 {
    match kind {
        LISTING | DELETION => MAX_LISTING_LIFE,
        ATTESTATION => ATTESTATION_LIFETIME,
        _ => OPINION_LIFE,
    }
}

/// Judges an event at `now`, all but its signature. Returns when it is to be forgotten, in seconds
/// since 1970.
///
/// # Errors
///
/// Says why it is not stored.
pub fn judge(event: &Event, min_work: u8, origin: Origin, now: u64) -> Result<u64, Refusal> {
    let kind = event.kind.as_u16();
    if !KINDS.contains(&kind) {
        return Err(Refusal::Kind(kind));
    }
    if event.tags.len() > MAX_TAGS {
        return Err(Refusal::Tags(event.tags.len()));
    }
    let bytes = event.as_json().len();
    if bytes > MAX_EVENT_BYTES {
        return Err(Refusal::Size(bytes));
    }
    let until = times(event, kind, origin, now)?;
    match kind {
        LISTING => listing(event, min_work)?,
        ATTESTATION => {
            SignedAttestation::read(event.clone()).map_err(Refusal::Attestation)?;
        }
        SEALED => {
            let recipients = event.tags.iter().filter(|tag| tag.kind() == "p").count();
            if recipients != 1 {
                return Err(Refusal::Recipient);
            }
        }
        DELETION => {
            let what = deleted(event);
            if what.addresses.is_empty() && what.ids.is_empty() {
                return Err(Refusal::DeletesNothing);
            }
        }
        _ => {}
    }
    Ok(until)
}

/// Judges what the event says about time.
fn times(event: &Event, kind: u16, origin: Origin, now: u64) -> Result<u64, Refusal> {
    let created = event.created_at.as_secs();
    if created > now.saturating_add(MAX_AHEAD) {
        return Err(Refusal::Future(created - now));
    }
    let age = now.saturating_sub(created);
    let max_age = match (kind, origin) {
        (SEALED, _) => MAX_LETTER_AGE,
        (_, Origin::Published) => MAX_PUBLISHED_AGE,
        (_, Origin::Copied) => life(kind),
    };
    if age > max_age {
        return Err(Refusal::Old(age, max_age));
    }
    let said = expiration(event);
    if said.is_some_and(|said| said <= now) {
        return Err(Refusal::Expired);
    }
    let longest = match kind {
        SEALED => now.saturating_add(LETTER_LIFE),
        _ => created.saturating_add(life(kind)),
    };
    if kind == LISTING {
        let said = said.ok_or(Refusal::NoExpiration)?;
        if said > longest {
            return Err(Refusal::LateExpiration(said - created));
        }
    }
    let until = said.map_or(longest, |said| said.min(longest));
    if until <= now { Err(Refusal::Expired) } else { Ok(until) }
}

fn listing(event: &Event, min_work: u8) -> Result<(), Refusal> {
    let found = work(event);
    if found < min_work {
        return Err(Refusal::Work(found, min_work));
    }
    SignedListing::read(event.clone()).map_err(Refusal::Listing).map(drop)
}

#[cfg(test)]
mod tests;
