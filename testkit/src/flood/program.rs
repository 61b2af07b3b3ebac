//! An attacker's programs: one sends a frame to all places of a device map, the other changes each
//! copy.

use std::os::fd::RawFd;

/// An instruction, as the kernel takes it.
pub(super) type Instruction = [u8; 8];

/// Ethernet, IPv4 without options, UDP.
pub(super) const HEADERS: usize = 14 + 20 + 8;
const IP_ID: i16 = 14 + 4;
const SOURCE_LOW: i16 = 14 + 14;
const RECEIVER_INDEX: i16 = HEADERS as i16 + 4;
const COUNTER: i16 = HEADERS as i16 + 8;
/// What of a frame must be there for all of the writes: up to the end of the counter's low half.
const WRITTEN: i32 = HEADERS as i32 + 12;

/// What is different in each frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Varied {
    /// The low half of the source's address. The header's ID takes its complement, so that the
    /// checksum stays right.
    pub(super) source: bool,
    /// A data message's receiver index.
    pub(super) index: bool,
    /// The low half of a data message's counter.
    pub(super) counter: bool,
}

/// Sends a frame to all interfaces of this device map.
pub(super) fn to_all_of(map: RawFd) -> Vec<Instruction> {
    vec![
        op(LOAD_LONG, 1, MAP_BY_DESCRIPTOR, 0, map),
        op(0, 0, 0, 0, 0),
        op(MOVE_NUMBER, 2, 0, 0, 0),
        op(MOVE_NUMBER, 3, 0, 0, BROADCAST),
        op(CALL, 0, 0, 0, REDIRECT_MAP),
        op(EXIT, 0, 0, 0, 0),
    ]
}

/// Changes a copy, which then leaves.
pub(super) fn change(varied: Varied) -> Vec<Instruction> {
    // The frame's beginning and its end; it goes nowhere if it is too short.
    let mut program = vec![
        op(LOAD_WORD, 6, 1, 0, 0),
        op(LOAD_WORD, 3, 1, 4, 0),
        op(MOVE, 2, 6, 0, 0),
        op(ADD_NUMBER, 2, 0, 0, WRITTEN),
        op(JUMP_IF_NOT_GREATER, 2, 3, 2, 0),
        op(MOVE_NUMBER, 0, 0, 0, XDP_ABORTED),
        op(EXIT, 0, 0, 0, 0),
    ];
    if varied.source {
        program.extend([
            op(CALL, 0, 0, 0, GET_PRANDOM_U32),
            op(STORE_HALF, 6, 0, SOURCE_LOW, 0),
            op(XOR_NUMBER, 0, 0, 0, 0xffff),
            op(STORE_HALF, 6, 0, IP_ID, 0),
        ]);
    }
    for (is_varied, at) in [(varied.index, RECEIVER_INDEX), (varied.counter, COUNTER)] {
        if is_varied {
            program.extend([op(CALL, 0, 0, 0, GET_PRANDOM_U32), op(STORE_WORD, 6, 0, at, 0)]);
        }
    }
    program.extend([op(MOVE_NUMBER, 0, 0, 0, XDP_PASS), op(EXIT, 0, 0, 0, 0)]);
    program
}

const XDP_ABORTED: i32 = 0;
const XDP_PASS: i32 = 2;
/// To all places of a map.
const BROADCAST: i32 = 8;
/// In the place of a register: the number is a map's file descriptor.
const MAP_BY_DESCRIPTOR: u8 = 1;
// Helpers of the kernel's, by their numbers.
const GET_PRANDOM_U32: i32 = 7;
const REDIRECT_MAP: i32 = 51;

// Codes of instructions. The names of those that end in NUMBER take the immediate value.
const LOAD_LONG: u8 = 0x18;
const LOAD_WORD: u8 = 0x61;
const STORE_HALF: u8 = 0x6b;
const STORE_WORD: u8 = 0x63;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const XOR_NUMBER: u8 = 0xa7;
const JUMP_IF_NOT_GREATER: u8 = 0xbd;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    let [o0, o1] = offset.to_ne_bytes();
    let [n0, n1, n2, n3] = number.to_ne_bytes();
    // The bit field of two registers lies as the machine's order of bytes has it.
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    [code, registers, o0, o1, n0, n1, n2, n3]
}
