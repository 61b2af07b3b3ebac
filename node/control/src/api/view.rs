//! Sessions as JSON. Nothing here says where a consumer is.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use weir_ledger::{UsageRecord, state_name};
use weir_sessions::Snapshot;
use weir_sessions::limits::{Change, LimitsNow};
use weir_wireguard::keys;

/// A session in JSON. Bytes are those of authenticated data messages as UDP payload, the unit of
/// `wg show transfer`; up is from the consumer, down is to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// 16 hex digits.
    pub id: String,
    /// What the operator calls it.
    pub name: Option<String>,
    /// Its place.
    pub slot: u32,
    /// The consumer's key in base64.
    pub public_key: String,
    /// Its inner IPv4 address.
    pub address_v4: Ipv4Addr,
    /// Its inner IPv6 address.
    pub address_v6: Ipv6Addr,
    /// `open`, `paused` or `closed`.
    pub state: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970; absent before the first handshake.
    pub last_handshake: Option<u64>,
    /// Authenticated bytes from the consumer: billed.
    pub bytes_up: u64,
    /// Data messages from the consumer.
    pub packets_up: u64,
    /// Bytes to the consumer: billed.
    pub bytes_down: u64,
    /// Data messages to the consumer.
    pub packets_down: u64,
    /// Handshake messages from the consumer, in bytes: not billed.
    pub handshake_bytes_up: u64,
    /// Handshake messages to the consumer, in bytes: not billed.
    pub handshake_bytes_down: u64,
    /// Seconds for which it was open.
    pub seconds: u64,
    /// The billed bytes, up and down together, that it may have in all; absent for no limit.
    pub credit_bytes: Option<u64>,
    /// The seconds that it may be open in all; absent for no limit.
    pub credit_seconds: Option<u64>,
    /// The rate of its uploads in bits per second; absent where it has that of the node's limits,
    /// 0 for no limit.
    pub rate_up: Option<u64>,
    /// The rate of its downloads, in the same unit.
    pub rate_down: Option<u64>,
    /// Why it is paused: `operator`, `credit`, `quota` or `schedule`; absent when it is not.
    pub paused_for: Option<String>,
    /// What the guard saw before any authentication.
    pub guard: GuardView,
}

/// The guard's own count of a session, forged and replayed datagrams included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardView {
    /// Data messages with the session's receiver index.
    pub datagrams: u64,
    /// Their UDP payload.
    pub bytes: u64,
    /// Datagrams that the guard dropped.
    pub dropped_datagrams: u64,
    /// Their UDP payload.
    pub dropped_bytes: u64,
}

impl From<&Snapshot> for SessionView {
    fn from(snapshot: &Snapshot) -> Self {
        let (session, counters) = (&snapshot.session, &snapshot.counters);
        Self {
            id: session.id.to_string(),
            name: session.name.clone(),
            slot: session.slot.0,
            public_key: keys::print_public(&session.public_key),
            address_v4: snapshot.address_v4,
            address_v6: snapshot.address_v6,
            state: state_name(session.state).to_owned(),
            created: session.created,
            last_handshake: Some(counters.last_handshake).filter(|seconds| *seconds > 0),
            bytes_up: counters.bytes_up,
            packets_up: counters.packets_up,
            bytes_down: counters.bytes_down,
            packets_down: counters.packets_down,
            handshake_bytes_up: counters.handshake_bytes_up,
            handshake_bytes_down: counters.handshake_bytes_down,
            seconds: snapshot.seconds,
            credit_bytes: snapshot.credit.bytes,
            credit_seconds: snapshot.credit.seconds,
            rate_up: snapshot.own_rates.up,
            rate_down: snapshot.own_rates.down,
            paused_for: snapshot.paused_for.map(str::to_owned),
            guard: GuardView {
                datagrams: counters.seen_datagrams,
                bytes: counters.seen_bytes,
                dropped_datagrams: counters.dropped_datagrams,
                dropped_bytes: counters.dropped_bytes,
            },
        }
    }
}

/// The answer with one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneSession {
    /// The session.
    pub session: SessionView,
}

/// The answer with all sessions, the oldest first; or with a page of them, by their identifiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllSessions {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// What to ask for the next page with, as `after`; null when there is none.
    pub cursor: Option<String>,
}

/// The answer to the making of a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeSession {
    /// The session.
    pub session: SessionView,
    /// The consumer's configuration for `wg-quick`. Where the node made the key pair, its private
    /// half is in here and nowhere else.
    pub config: String,
    /// The key that signs this session's usage records: Ed25519, in base64.
    pub signer: String,
}

/// The request for more credit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditRequest {
    /// What the payment layer calls it. The same one again adds nothing.
    pub reference: String,
    /// Billed bytes to add.
    #[serde(default)]
    pub bytes: u64,
    /// Seconds to add.
    #[serde(default)]
    pub seconds: u64,
}

/// The request for a session's own rates, in bits per second; 0 is no limit. What is absent is as
/// the node's limits say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateRequest {
    /// From the consumer.
    pub up: Option<u64>,
    /// To the consumer.
    pub down: Option<u64>,
}

/// The node's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsView {
    /// As they were set.
    pub limits: Change,
    /// What of them holds now.
    pub now: LimitsNow,
}

/// Usage records, in the order of their cursors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsagePage {
    /// The records after the cursor that was asked for.
    pub records: Vec<UsageRecord>,
    /// What to ask with next.
    pub cursor: u64,
    /// The key that signs this node's records now: Ed25519, in base64.
    pub signer: String,
}

/// The request for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The consumer's key in base64; the node makes a pair where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The pre-shared key in base64, or `generate` for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<String>,
    /// Whether it is paused until there is credit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prepaid: bool,
}

/// Vouchers to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoucherRequest {
    /// The batch's name. More vouchers of the same terms can be added to a batch.
    pub batch: String,
    /// How many: 1 to 1000.
    pub count: u32,
    /// The bytes that each is good for.
    #[serde(default)]
    pub bytes: u64,
    /// The seconds that each is good for.
    #[serde(default)]
    pub seconds: u64,
    /// The Unix time after which they are not taken.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// Vouchers that were made. Their codes are stored nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeVouchers {
    /// The batch's name.
    pub batch: String,
    /// The codes.
    pub codes: Vec<String>,
}

/// A batch of vouchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoucherBatchView {
    /// Its name.
    pub batch: String,
    /// The bytes that each of its vouchers is good for.
    pub bytes: u64,
    /// The seconds that each is good for.
    pub seconds: u64,
    /// When it was made.
    pub made: u64,
    /// The Unix time after which they are not taken; null for never.
    pub expires: Option<u64>,
    /// How many there are.
    pub vouchers: u64,
    /// How many were used.
    pub used: u64,
    /// When the others were revoked; null if they were not.
    pub revoked: Option<u64>,
}

/// Batches of vouchers, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllVouchers {
    /// The batches.
    pub batches: Vec<VoucherBatchView>,
    /// What to ask for next; null at the end.
    pub cursor: Option<u64>,
}

/// Vouchers to be revoked: a batch, or one by its code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The batch's name.
    #[serde(default)]
    pub batch: Option<String>,
    /// The code.
    #[serde(default)]
    pub code: Option<String>,
}

/// Whether a request has changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `false` if it was so before, or there is no such thing.
    pub changed: bool,
}

/// What came of one mint's ecash, in its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintEarnings {
    /// The mint's URL.
    pub mint: String,
    /// Its unit.
    pub unit: String,
    /// The value of all tokens that were taken.
    pub received: u64,
    /// The part of it that the mint has not exchanged yet.
    pub unredeemed: u64,
    /// What the mint gave in exchange.
    pub redeemed: u64,
    /// What the mint kept as its fees.
    pub fees: u64,
    /// What the mint says was spent elsewhere.
    pub lost: u64,
    /// The part of `redeemed` that was withdrawn.
    pub withdrawn: u64,
}

/// What the node has earned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earnings {
    /// What channels have promised, in wei, as decimal text.
    pub promised_wei: String,
    /// Vouchers that were used, of all batches.
    pub vouchers_used: u64,
    /// What came of each mint's ecash.
    pub mints: Vec<MintEarnings>,
    /// Withdrawals that were not confirmed, without their tokens.
    pub unconfirmed: Vec<WithdrawalView>,
}

/// A withdrawal of ecash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawalView {
    /// Its number.
    pub withdrawal: u64,
    /// The mint's URL.
    pub mint: String,
    /// Its value.
    pub amount: u64,
    /// When it was made.
    pub made: u64,
    /// The token for a wallet; null in a list. Anyone who has it can spend it.
    pub token: Option<String>,
}

/// Which ecash to withdraw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// The mint's URL; not needed if there is one alone.
    #[serde(default)]
    pub mint: Option<String>,
    /// The number of a withdrawal that was not confirmed, whose token is to be shown again.
    #[serde(default)]
    pub again: Option<u64>,
}

/// Which withdrawal has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// Its number.
    pub withdrawal: u64,
}
