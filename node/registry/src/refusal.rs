//! Why an event is not stored.

/// Why an event is not stored. The message to the client is [`Refusal::message`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is stored already.
    #[error("this event is stored already")]
    Duplicate,
    /// A newer version is stored.
    #[error("a newer version of this event is stored")]
    Older,
    /// Its key has deleted it.
    #[error("its key has deleted this event")]
    Deleted,
    /// It is not an event.
    #[error("this is not a Nostr event: {0}")]
    Form(String),
    /// It has too many bytes.
    #[error("the event has {0} bytes, and at most 8192 are stored")]
    Size(usize),
    /// It has too many tags.
    #[error("the event has {0} tags, and at most 128 are stored")]
    Tags(usize),
    /// The kind is not stored.
    #[error(
        "kind {0} is not stored here: only listings (30402), deletions (5), attestations (30384), \
         lists of listings (30267), reports (1984) and sealed letters (1059) are"
    )]
    Kind(u16),
    /// Its identifier is not its hash, or its signature does not fit.
    #[error("the signature or the identifier is wrong")]
    Signature,
    /// It was created too long ago.
    #[error("created_at is {0} s ago, and at most {1} s are accepted: sign the event again")]
    Old(u64, u64),
    /// It was created in the future.
    #[error("created_at is {0} s in the future: set the clock of the machine that signs")]
    Future(u64),
    /// It has expired.
    #[error("the event has expired")]
    Expired,
    /// It does not say when it expires.
    #[error(
        "a listing must say when it expires: add the tag expiration (NIP-40), at most 24 h ahead"
    )]
    NoExpiration,
    /// It expires too late.
    #[error("the listing expires {0} s after created_at, and at most 86400 s are accepted")]
    LateExpiration(u64),
    /// It is not a listing that a consumer can use.
    #[error("the listing cannot be used: {0}")]
    Listing(weir_market::event::Refused),
    /// It is not an attestation that a consumer can use.
    #[error("the attestation cannot be used: {0}")]
    Attestation(weir_market::event::Refused),
    /// An attestation about an exit that is not listed here.
    #[error("the attestation is about an exit that is not listed here")]
    UnknownExit,
    /// A letter without exactly one recipient.
    #[error("a sealed letter must name one recipient, in one tag p")]
    Recipient,
    /// A deletion that deletes nothing of its key.
    #[error("the deletion names no event of its key, in a tag a or e")]
    DeletesNothing,
    /// It has too little proof of work.
    #[error("the listing has {0} bits of proof of work (NIP-13), and {1} are demanded")]
    Work(u8, u8),
    /// The key has too many events of a kind.
    #[error("this key has {0} events of kind {1} here, and that is the limit")]
    KeyFull(usize, u16),
    /// Too many new keys of one network.
    #[error(
        "{0} new keys of this network have published within a day, and that is the limit: publish \
         at another registry, or tomorrow"
    )]
    NewKeys(u32),
    /// Too many events of one network.
    #[error("this network publishes too many events at once: wait a few seconds")]
    TooFast,
    /// Too many letters of one network.
    #[error("this network sends too many sealed letters: wait a minute")]
    Letters,
    /// Too many attestations of one network.
    #[error("this network publishes too many attestations: wait a minute")]
    Attestations,
    /// The registry is full.
    #[error("the registry is full: publish at another one, or try again later")]
    Full,
    /// A peer has sent enough new keys.
    #[error("this peer has sent too many new keys within a day")]
    PeerKeys,
}

impl Refusal {
    /// The prefix of the message to the client, for programs (NIP-01).
    #[must_use]
    pub const fn prefix(&self) -> &'static str {
        match self {
            Self::Duplicate | Self::Older => "duplicate",
            Self::Form(_)
            | Self::Size(_)
            | Self::Tags(_)
            | Self::Signature
            | Self::Old(..)
            | Self::Future(_)
            | Self::Expired
            | Self::NoExpiration
            | Self::LateExpiration(_)
            | Self::Listing(_)
            | Self::Attestation(_)
            | Self::Recipient
            | Self::DeletesNothing => "invalid",
            Self::Kind(_) | Self::UnknownExit => "restricted",
            Self::Deleted => "blocked",
            Self::Work(..) => "pow",
            Self::KeyFull(..)
            | Self::NewKeys(_)
            | Self::TooFast
            | Self::Letters
            | Self::Attestations
            | Self::Full
            | Self::PeerKeys => "rate-limited",
        }
    }

    /// A word for counters.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Older => "older",
            Self::Deleted => "deleted",
            Self::Form(_) => "form",
            Self::Size(_) => "size",
            Self::Tags(_) => "tags",
            Self::Kind(_) => "kind",
            Self::Signature => "signature",
            Self::Old(..) => "old",
            Self::Future(_) => "future",
            Self::Expired => "expired",
            Self::NoExpiration => "no_expiration",
            Self::LateExpiration(_) => "late_expiration",
            Self::Listing(_) => "listing",
            Self::Attestation(_) => "attestation",
            Self::UnknownExit => "unknown_exit",
            Self::Recipient => "recipient",
            Self::DeletesNothing => "deletes_nothing",
            Self::Work(..) => "work",
            Self::KeyFull(..) => "key_full",
            Self::NewKeys(_) => "new_keys",
            Self::TooFast => "too_fast",
            Self::Letters => "letters",
            Self::Attestations => "attestations",
            Self::Full => "full",
            Self::PeerKeys => "peer_keys",
        }
    }

    /// All words, so that a counter exists before it counts.
    pub const WORDS: [&'static str; 26] = [
        "duplicate",
        "older",
        "deleted",
        "form",
        "size",
        "tags",
        "kind",
        "signature",
        "old",
        "future",
        "expired",
        "no_expiration",
        "late_expiration",
        "listing",
        "attestation",
        "unknown_exit",
        "recipient",
        "deletes_nothing",
        "work",
        "key_full",
        "new_keys",
        "too_fast",
        "letters",
        "attestations",
        "full",
        "peer_keys",
    ];

    /// Whether the client may take it for stored (NIP-01: a duplicate is).
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        matches!(self, Self::Duplicate)
    }

    /// What the client is told: the prefix, and a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}: {self}", self.prefix())
    }
}
