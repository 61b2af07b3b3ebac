//! What watchers say of exits.

use std::{borrow::Cow, sync::OnceLock};

use weir_market::{
    event::{ATTESTATION_LIFETIME, Event, LISTING, SignedAttestation, sign_attestation},
    key::MarketKey,
};

/// When the cases count, in seconds since 1970.
const ATTESTED_AT: u64 = 1_800_000_000;

/// An event of a stranger is an attestation or none. One that counts is verified and expires, it is
/// about a listing, and what is read of it is read again when it is written.
pub fn attestations(bytes: &[u8]) {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    if let Ok(signed) = SignedAttestation::from_json(&text, ATTESTED_AT) {
        assert!(signed.event.verify().is_ok());
        assert!(signed.expires() > ATTESTED_AT);
    }
    let Ok(event) = Event::from_json(text.as_bytes()) else { return };
    let created_at = event.created_at.as_secs();
    let Ok(signed) = SignedAttestation::read(event) else { return };
    assert!(signed.expires() <= created_at.saturating_add(ATTESTATION_LIFETIME));
    assert_eq!(signed.attestation.exit.kind, LISTING);
    let written = sign_attestation(key(), &signed.attestation, ATTESTED_AT);
    let read = SignedAttestation::read(written).expect("what weir writes, it reads");
    assert_eq!(read.attestation, signed.attestation);
}

fn key() -> &'static MarketKey {
    static KEY: OnceLock<MarketKey> = OnceLock::new();
    KEY.get_or_init(MarketKey::random)
}
