//! The guard's whole verdict: what a message is, whether it is for us, for whom, and how often.
//!
//! The parser says what a frame is; this says whether what the guard remembers lets it pass. The
//! same code runs in the kernel, over its maps, and in tests, over a model of them.

use crate::{
    DropReason, GuardConfig, Slot,
    account::SessionState,
    gcra::Rate,
    guard::Lane,
    mac1::MAC_LEN,
    meter::{Meter, Origin},
    packet::{Class, Decision, Frame, Source, Verdict, judge},
    wire::INITIATION_LEN,
};

/// What the guard remembers of sessions and sources.
pub trait Memory {
    /// What the session at `slot` may do. A slot without a session is vacant.
    fn standing(&self, slot: Slot) -> SessionState;
    /// Whether `source` is where the session at `slot` was last heard.
    fn origin(&self, slot: Slot, source: &Source) -> Origin;
    /// Takes one from a bucket of the slot's.
    fn take(&self, slot: Slot, meter: Meter, rate: Rate) -> bool;
    /// Takes one from a source's bucket for initiations.
    fn take_initiation(&self, source: u64, rate: Rate) -> bool;
    /// Takes one from this CPU's bucket for the initiations of all sources.
    fn take_of_all(&self, lane: Lane, rate: Rate) -> bool;
}

/// Judges a frame by all that is known. With the decision comes the slot whose session the message
/// says that it is for, if there is one.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, M: Memory>(
    frame: &F,
    config: &GuardConfig,
    memory: &M,
) -> (Decision, Option<Slot>) {
    let mut decision = judge(frame, config.rules());
    let mut slot = None;
    let Verdict::Pass(class) = decision.verdict else { return (decision, slot) };
    let at = decision.at as usize;
    let refused = match class {
        Class::Other | Class::Fragment | Class::Return => None,
        Class::Initiation => {
            refuse_initiation(frame, at, decision.source.network(), config, memory)
        }
        Class::Response | Class::CookieReply | Class::Data => {
            let found = decision.receiver_index.and_then(|index| config.slot_of(index));
            let standing = match found {
                Some(found) => memory.standing(found),
                None => SessionState::Vacant,
            };
            if standing != SessionState::Vacant {
                slot = found;
            }
            match (standing, class, slot) {
                (SessionState::Vacant, ..) | (_, _, None) => Some(DropReason::GuardIndex),
                (SessionState::Closed, ..) => Some(DropReason::GuardClosed),
                (_, Class::Response, _)
                    if config.mac1.live > 0 && !config.mac1.fit_response(frame, at) =>
                {
                    Some(DropReason::GuardMac1)
                }
                (standing, class, Some(slot)) => {
                    refuse_beyond_meter(slot, standing, class, &decision.source, memory)
                }
            }
        }
    };
    if let Some(reason) = refused {
        decision.verdict = Verdict::Drop(reason);
    }
    (decision, slot)
}

/// What a session may be sent that costs more than a look into the account. Data from its endpoint
/// is not metered: nobody else can send it who does not see or guess that address.
#[inline(always)]
fn refuse_beyond_meter<M: Memory>(
    slot: Slot,
    standing: SessionState,
    class: Class,
    source: &Source,
    memory: &M,
) -> Option<DropReason> {
    let origin = memory.origin(slot, source);
    let meter = match (class, origin, standing) {
        (Class::Data, Origin::Elsewhere, _) => Meter::RoamingData,
        (Class::Data, Origin::Endpoint, SessionState::Paused) => Meter::PausedData,
        (Class::Data, Origin::Endpoint, _) => return None,
        _ => Meter::Responses,
    };
    if memory.take(slot, meter, meter.rate(origin)) { None } else { Some(meter.refusal()) }
}

/// The MAC comes first: who does not know our key must not use up the bucket of one who does.
#[inline(always)]
fn refuse_initiation<F: Frame + ?Sized, M: Memory>(
    frame: &F,
    at: usize,
    source: u64,
    config: &GuardConfig,
    memory: &M,
) -> Option<DropReason> {
    if config.mac1.live > 0 && !config.mac1.fit_initiation(frame, at) {
        return Some(DropReason::GuardMac1);
    }
    if config.initiations.interval > 0 && !memory.take_initiation(source, config.initiations) {
        return Some(DropReason::GuardHandshakeSourceRate);
    }
    if config.ceiling.interval > 0 {
        // Who has a cookie fills all 16 bytes with a MAC: its first four are as good as never zero.
        let second_mac = frame.word(at + INITIATION_LEN - MAC_LEN);
        let lane = if second_mac == 0 { Lane::WithoutCookie } else { Lane::WithCookie };
        if !memory.take_of_all(lane, config.ceiling) {
            return Some(DropReason::GuardHandshakeCpuRate);
        }
    }
    None
}
