//! The registers that the expressions of a rule read and write.

use super::Step;
use crate::nfnetlink::{find, number};

/// The size of all registers in bytes: `NFT_REG32_NUM` registers of four bytes.
const REGISTERS: usize = 80;

/// The registers of one rule.
pub(super) struct Registers {
    /// Each byte; `None` if it cannot be told.
    bytes: [Option<u8>; REGISTERS],
    /// Whether the rule names one of weir's interfaces or ports.
    names_us: bool,
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [None; REGISTERS], names_us: false }
    }

    /// Forgets every byte, after an expression that may have written any of them.
    pub(super) fn forget(&mut self) {
        self.bytes = [None; REGISTERS];
    }

    /// Turns a condition into a step: whether it holds, or `None` if that cannot be told.
    pub(super) fn judge(&mut self, holds: Option<bool>, names_us: bool) -> Step {
        self.names_us |= holds == Some(true) && names_us;
        match holds {
            Some(true) => Step::Continue,
            None if self.names_us => Step::Continue,
            _ => Step::Break,
        }
    }

    /// The byte offset of a register. Four have 16 bytes, the others 4.
    fn offset(data: &[u8], kind: u16) -> usize {
        match number(find(data, kind)) as usize {
            register @ 1..=4 => (register - 1) * 16,
            register => register.saturating_sub(8) * 4,
        }
    }

    pub(super) fn get(&self, data: &[u8], kind: u16, length: usize) -> Option<Vec<u8>> {
        let begin = Self::offset(data, kind);
        self.bytes.get(begin..begin.checked_add(length)?)?.iter().copied().collect()
    }

    pub(super) fn set(&mut self, data: &[u8], kind: u16, value: Option<Vec<u8>>) {
        let begin = Self::offset(data, kind);
        let registers = self.bytes.get_mut(begin..).unwrap_or_default();
        match value {
            // The kernel pads a value with zeros to a multiple of four bytes.
            Some(value) => {
                let length = value.len().next_multiple_of(4);
                let padded = value.iter().copied().chain(std::iter::repeat(0)).take(length);
                registers.iter_mut().zip(padded).for_each(|(to, byte)| *to = Some(byte));
            }
            None => registers.iter_mut().take(16).for_each(|to| *to = None),
        }
    }
}
