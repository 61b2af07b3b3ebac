//! The states of a TCP connection, as a translator sees them (RFC 5382, RFC 7857 section 2). Nothing
//! here ends a flow: that is what time-outs do.

use crate::{
    flow::{Direction, State},
    parse::TcpFlags,
};

impl State {
    /// After a segment.
    #[inline]
    pub(crate) fn after_segment(self, flags: TcpFlags, direction: Direction) -> Self {
        use Direction::{Down, Up};
        if flags.rst() {
            return Self::Reset;
        }
        match (self, direction) {
            // Also the SYN without an ACK of a simultaneous open (RFC 5382, REQ-2).
            (Self::SynSent, Down) if flags.syn() => Self::SynReceived,
            // The consumer goes on: the reset was forged. Late segments of the other side after a
            // true reset show nothing.
            (Self::Reset, Up) if !flags.syn() => Self::Established.after_fin(flags, direction),
            (Self::SynReceived, Up) if flags.ack() => Self::Established.after_fin(flags, direction),
            (Self::PickedUp, Down) => Self::Established.after_fin(flags, direction),
            (state, _) => state.after_fin(flags, direction),
        }
    }

    #[inline]
    fn after_fin(self, flags: TcpFlags, direction: Direction) -> Self {
        if !flags.fin() {
            return self;
        }
        match (self, direction) {
            (Self::Established | Self::PickedUp | Self::SynReceived, Direction::Up) => Self::FinUp,
            (Self::Established | Self::SynReceived, Direction::Down) => Self::FinDown,
            (Self::FinDown, Direction::Up) | (Self::FinUp, Direction::Down) => Self::Closed,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{TCP_ESTABLISHED_TIMEOUT, TCP_TRANSITORY_TIMEOUT};
    use crate::policy::Protocol;
    use Direction::{Down, Up};

    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    fn after(segments: &[(Direction, u8)]) -> State {
        segments.iter().fold(State::SynSent, |state, (direction, flags)| {
            state.after_segment(TcpFlags(*flags), *direction)
        })
    }

    #[test]
    fn a_handshake_makes_a_connection() {
        assert_eq!(after(&[(Up, SYN)]), State::SynSent);
        assert_eq!(after(&[(Down, SYN | ACK)]), State::SynReceived);
        assert_eq!(after(&[(Down, SYN | ACK), (Down, SYN | ACK)]), State::SynReceived);
        assert_eq!(after(&[(Down, SYN | ACK), (Down, ACK)]), State::SynReceived);
        assert_eq!(after(&[(Down, SYN | ACK), (Up, ACK)]), State::Established);
    }

    #[test]
    fn a_simultaneous_open_makes_a_connection() {
        let opened = [(Down, SYN), (Up, SYN | ACK), (Down, SYN | ACK)];
        assert_eq!(after(&opened), State::Established);
    }

    #[test]
    fn an_answer_without_a_syn_opens_nothing() {
        assert_eq!(after(&[(Down, ACK), (Down, ACK | FIN)]), State::SynSent);
    }

    #[test]
    fn a_connection_is_over_after_both_fins() {
        let open = [(Down, SYN | ACK), (Up, ACK)];
        let with = |more: &[(Direction, u8)]| after(&[&open, more].concat());
        assert_eq!(with(&[(Up, FIN | ACK), (Down, ACK)]), State::FinUp);
        assert_eq!(with(&[(Up, FIN | ACK), (Up, FIN | ACK)]), State::FinUp);
        assert_eq!(with(&[(Down, FIN | ACK)]), State::FinDown);
        assert_eq!(with(&[(Up, FIN | ACK), (Down, FIN | ACK)]), State::Closed);
        assert_eq!(with(&[(Down, FIN | ACK), (Up, FIN | ACK), (Down, ACK)]), State::Closed);
    }

    #[test]
    fn a_reset_is_believed_until_the_consumer_goes_on() {
        let reset = [(Down, SYN | ACK), (Up, ACK), (Down, RST)];
        assert_eq!(after(&reset), State::Reset);
        assert_eq!(after(&[&reset[..], &[(Down, ACK)]].concat()), State::Reset);
        assert_eq!(after(&[&reset[..], &[(Up, ACK)]].concat()), State::Established);
    }

    #[test]
    fn only_an_open_connection_may_be_idle_for_hours() {
        let timeout = |state: State| state.timeout(Protocol::Tcp);
        assert_eq!(timeout(State::Established), TCP_ESTABLISHED_TIMEOUT);
        for state in [
            State::SynSent,
            State::SynReceived,
            State::PickedUp,
            State::FinUp,
            State::FinDown,
            State::Closed,
            State::Reset,
        ] {
            assert_eq!(timeout(state), TCP_TRANSITORY_TIMEOUT, "{state:?}");
        }
    }
}
