//! The same messages as letters, sealed (NIP-59): for exits that have no domain and no open TCP port.
//!
//! The order is an unsigned event of kind 24242 with the tags of an authorization, whose `server` is
//! the exit's key in hex. Its content is the body of a purchase with the payment in it (`token` or
//! `voucher`). It is sealed by the buyer's key, so that it needs no signature of its own, and wrapped
//! (kind 1059) for the exit's key. The answer comes back in the same way, and names the order's
//! identifier in a tag `e`.

use nostr::{
    event::{Event, EventId, FinalizeEvent as _, Kind, Tag, UnsignedEvent},
    key::{Keys, PublicKey},
    nips::nip59::{GiftWrapBuilder, UnwrappedGift},
    types::Timestamp,
};

use super::{
    AUTHORIZATION, Answer, BuyerKey, Expected, MAX_PAYMENT, Offer, Order, Refusal,
    answer::NotAnAnswer, auth::check_tags,
};
use crate::{event::SEALED, key::MarketKey};

/// The longest letter, in bytes of JSON. Two layers of encryption and base64 are on it.
pub const MAX_LETTER: usize = 4 * MAX_PAYMENT;
/// For how long a relay should keep a letter, in seconds. Its time of creation is random within the
/// two days before (NIP-59).
const KEEP: u64 = 2 * 86_400 + 600;
/// For how long an order counts, in seconds.
const LIFETIME: u64 = 600;

/// Why a letter is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALetter {
    /// It is too long.
    #[error("the letter is longer than {MAX_LETTER} bytes")]
    TooLong,
    /// It is another kind of event, or for another key.
    #[error("the letter is not for this key")]
    NotOurs,
    /// It cannot be opened, or whoever sealed it did not write it.
    #[error("the letter cannot be opened")]
    Sealed,
    /// What is in it is not an order, or an answer to one.
    #[error("the letter has something else in it")]
    Content,
    /// What is in it is no answer of an exit.
    #[error(transparent)]
    Answer(#[from] NotAnAnswer),
}

/// Whether a letter is for this key, as far as its envelope says. Costs no arithmetic.
///
/// # Errors
///
/// When it is not.
pub fn check_envelope(letter: &Event, to: &PublicKey) -> Result<(), NotALetter> {
    if letter.content.len() > MAX_LETTER {
        return Err(NotALetter::TooLong);
    }
    let hex = to.to_hex();
    let is_addressed = |tag: &Tag| tag.kind() == "p" && tag.content() == Some(hex.as_str());
    if letter.kind.as_u16() != SEALED || !letter.tags.iter().any(is_addressed) {
        return Err(NotALetter::NotOurs);
    }
    Ok(())
}

/// An order that came in a letter. Whoever sealed it has signed it.
#[derive(Clone, Debug)]
pub struct OpenedOrder {
    /// To whom the answer goes.
    pub buyer: PublicKey,
    /// The order's identifier.
    pub id: EventId,
    rumor: UnsignedEvent,
}

impl OpenedOrder {
    /// Opens a letter: four operations on the curve, about a millisecond.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or has something else in it.
    pub fn open(key: &MarketKey, letter: &Event) -> Result<Self, NotALetter> {
        check_envelope(letter, &key.public())?;
        let (buyer, rumor) = open(&key.0, letter)?;
        let id = rumor.compute_id();
        Ok(Self { buyer, id, rumor })
    }

    /// Whether it authorizes a purchase. `expected.servers` has the exit's key in hex.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        check_tags(&self.rumor.tags, expected)
    }

    /// What is ordered.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn order(&self) -> Result<Order, Refusal> {
        Order::read_letter(&self.rumor.content)
    }

    /// The sealed answer.
    ///
    /// # Errors
    ///
    /// When it cannot be encrypted, which does not happen to an answer of ordinary length.
    pub fn answer(&self, key: &MarketKey, answer: &Answer, now: u64) -> Result<Event, NotALetter> {
        let tags = [Tag::custom("e", [self.id.to_hex()])];
        seal(&key.0, self.buyer, tags, answer.to_json(), now)
    }
}

/// An order that a buyer has sent, and waits to be answered.
#[derive(Clone, Debug)]
pub struct SentOrder {
    /// The letter for a relay. The same again gets the same answer.
    pub letter: Event,
    id: EventId,
    exit: PublicKey,
    key: BuyerKey,
}

impl SentOrder {
    /// Seals an order as of `now`. `offer.server` is replaced by the exit's key.
    ///
    /// # Errors
    ///
    /// When the payment is too long to be encrypted.
    pub fn seal(key: BuyerKey, offer: &Offer, order: &Order, now: u64) -> Result<Self, NotALetter> {
        let exit = offer.exit;
        let offer = Offer { server: exit.to_hex(), ..offer.clone() };
        let tags = offer.tags(now.saturating_add(LIFETIME));
        let rumor = rumor(&key.0, tags, order.letter(), now);
        let id = rumor.compute_id();
        let letter = wrap(&key.0, exit, rumor)?;
        Ok(Self { letter, id, exit, key })
    }

    /// The key to which the answer will be addressed.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Opens a letter that may be the answer.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn open(&self, letter: &Event) -> Result<Answer, NotALetter> {
        check_envelope(letter, &self.key.public())?;
        let (from, rumor) = open(&self.key.0, letter)?;
        let id = self.id.to_hex();
        let names = |tag: &Tag| tag.kind() == "e" && tag.content() == Some(id.as_str());
        if from != self.exit || !rumor.tags.iter().any(names) {
            return Err(NotALetter::Content);
        }
        let answer = Answer::from_json(rumor.content.as_bytes(), 0)?;
        Ok(match answer {
            Answer::Refused(mut refusal) => {
                refusal.status = refusal.reason.status();
                Answer::Refused(refusal)
            }
            sold @ Answer::Sold(_) => sold,
        })
    }
}

fn open(key: &Keys, letter: &Event) -> Result<(PublicKey, UnsignedEvent), NotALetter> {
    let opened = UnwrappedGift::from_gift_wrap(key, letter).map_err(|_| NotALetter::Sealed)?;
    let UnwrappedGift { sender, rumor } = opened;
    if rumor.kind.as_u16() != AUTHORIZATION {
        return Err(NotALetter::Content);
    }
    Ok((sender, rumor))
}

fn rumor(
    key: &Keys,
    tags: impl IntoIterator<Item = Tag>,
    content: String,
    now: u64,
) -> UnsignedEvent {
    let (created_at, kind) = (Timestamp::from_secs(now), Kind::from(AUTHORIZATION));
    UnsignedEvent::new(key.public_key(), created_at, kind, tags, content)
}

fn wrap(key: &Keys, to: PublicKey, rumor: UnsignedEvent) -> Result<Event, NotALetter> {
    let keep = std::time::Duration::from_secs(KEEP);
    let builder = GiftWrapBuilder::new(to, rumor).expiration(keep);
    builder.finalize(key).map_err(|_| NotALetter::TooLong)
}

fn seal(
    key: &Keys,
    to: PublicKey,
    tags: impl IntoIterator<Item = Tag>,
    content: String,
    now: u64,
) -> Result<Event, NotALetter> {
    wrap(key, to, rumor(key, tags, content, now))
}
