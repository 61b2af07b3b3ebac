//! The way to the bytes of a packet, and to counters of one CPU.
#![expect(unsafe_code, reason = "the kernel hands out pointers; its verifier checks each use")]

use core::{arch::asm, mem::MaybeUninit, sync::atomic::AtomicU64};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::{SkReuseportContext, XdpContext},
};
use weir_common::{
    Account, Slot,
    account::SessionState,
    exit::{ExitMemory, FragmentKey, is_fresh, port_bit},
    filter::Memory,
    gcra::{Gcra, Rate},
    guard::{Lane, Tally},
    meter::{Meter, Origin},
    packet::{Frame, Source},
};

use crate::maps::{ACCOUNTS, CEILINGS, FRAGMENTS, PORTS, Record, SOURCES};

/// How the kernel's loader knows what the programs may call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A frame in one piece.
pub struct Linear<'a>(pub &'a XdpContext);

impl Frame for Linear<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the bytes from `start` to `start + N` are within the packet, as just compared.
        Some(unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn block(&self, offset: usize) -> Option<[u32; 16]> {
        let (data, end) = pointers(self.0);
        let start = data + offset;
        if start + 64 > end {
            return None;
        }
        // SAFETY: the words are within the packet, as just compared. This target is little-endian.
        Some(unsafe { (start as *const [u32; 16]).read_unaligned() })
    }
}

/// The beginning and the end of a frame's first piece. Volatile, so that the pointers are read here
/// and not kept across a call, where the compiler would treat them as numbers.
#[inline(always)]
fn pointers(ctx: &XdpContext) -> (usize, usize) {
    // SAFETY: the context is the one that the kernel gave this program.
    unsafe {
        let data = (&raw const (*ctx.ctx).data).read_volatile();
        (data as usize, (&raw const (*ctx.ctx).data_end).read_volatile() as usize)
    }
}

/// A frame's first piece, for reads behind a comparison with the frame's length: the compiler would
/// leave out the comparison of the pointers as known, and the verifier wants to see it.
pub struct Head<'a>(pub &'a XdpContext);

impl Frame for Head<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        let (data, end) = pointers(self.0);
        end - data
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let (data, end) = pointers(self.0);
        let start = data + offset;
        if start + N > end {
            return None;
        }
        // SAFETY: the bytes from `start` to `start + N` are within the packet, as just compared.
        Some(unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn block(&self, offset: usize) -> Option<[u32; 16]> {
        Linear(self.0).block(offset)
    }
}

/// A frame in one piece or several. The headers are almost always in the first.
pub struct Scattered<'a>(pub &'a XdpContext);

impl Frame for Scattered<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the one that the kernel gave this program.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = Linear(self.0).bytes(offset) {
            return Some(bytes);
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the kernel writes all `N` bytes, or returns an error.
        unsafe {
            let to = bytes.as_mut_ptr().cast();
            (bpf_xdp_load_bytes(self.0.ctx, offset as u32, to, N as u32) == 0)
                .then(|| bytes.assume_init())
        }
    }

    #[inline(always)]
    fn block(&self, offset: usize) -> Option<[u32; 16]> {
        let mut block = MaybeUninit::<[u32; 16]>::uninit();
        // SAFETY: the kernel writes all 64 bytes, or returns an error. This target is
        // little-endian.
        unsafe {
            let to = block.as_mut_ptr().cast();
            (bpf_xdp_load_bytes(self.0.ctx, offset as u32, to, 64) == 0)
                .then(|| block.assume_init())
        }
    }

    /// By the helper alone: the verifier need not know the offset, and so walks through what
    /// follows once, not for each way on which the parser may have come here.
    #[inline(always)]
    fn word(&self, offset: usize) -> u32 {
        let mut word = 0u32;
        // SAFETY: the kernel writes 4 bytes, or none.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, offset as u32, (&raw mut word).cast(), 4) };
        word
    }
}

/// The `N` bytes from `offset` on, counted from the UDP header.
#[inline(always)]
pub fn udp_bytes<const N: usize>(ctx: &SkReuseportContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the kernel writes all `N` bytes, or returns an error.
    unsafe {
        let to = bytes.as_mut_ptr().cast();
        (bpf_skb_load_bytes(ctx.as_ptr(), offset, to, N as u32) == 0).then(|| bytes.assume_init())
    }
}

/// The receive queue at which the frame arrived.
#[inline(always)]
pub fn receive_queue(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel gave this program.
    unsafe { (&raw const (*ctx.ctx).rx_queue_index).read_volatile() }
}

/// Counts a frame.
#[inline(always)]
pub fn add_to_tally(tally: *mut Tally, bytes: u64) {
    // SAFETY: the map lookup gave the pointer; it is this CPU's own record, and a program is not
    // interrupted by another run of itself on the same CPU.
    unsafe {
        (*tally).datagrams += 1;
        (*tally).bytes += bytes;
    }
}

/// What the guard remembers: the accounts and the sources.
pub struct Maps;

impl Memory for Maps {
    #[inline(always)]
    fn standing(&self, slot: Slot) -> SessionState {
        let Some(record) = ACCOUNTS.get_ptr(slot.0) else { return SessionState::Vacant };
        let account = record.cast::<Account>();
        // SAFETY: a map lookup gave the record; the fields are within it and aligned. This target
        // has no atomic loads, but its plain ones are whole.
        unsafe {
            let state = (&raw const (*account).control.state).cast::<u32>().read_volatile();
            let limit = (&raw const (*account).control.limit).cast::<u64>().read_volatile();
            let spent = (&raw const (*account).worker.spent).cast::<u64>().read_volatile();
            SessionState::standing(state, limit, spent)
        }
    }

    #[inline(always)]
    fn origin(&self, slot: Slot, source: &Source) -> Origin {
        let Some(record) = ACCOUNTS.get_ptr(slot.0) else { return Origin::Elsewhere };
        let account = record.cast::<Account>();
        // SAFETY: as above.
        let is_endpoint = unsafe {
            let address = (&raw const (*account).worker.address).cast::<[u64; 2]>();
            let port = (&raw const (*account).worker.port).cast::<u32>().read_volatile();
            source.is_at(address.read_volatile(), port)
        };
        if is_endpoint { Origin::Endpoint } else { Origin::Elsewhere }
    }

    #[inline(always)]
    fn take(&self, slot: Slot, meter: Meter, rate: Rate) -> bool {
        let Some(record) = ACCOUNTS.get_ptr_mut(slot.0) else { return false };
        let account = record.cast::<Account>();
        // SAFETY: a map lookup gave the record; the fields are within it.
        unsafe {
            let full_at = match meter {
                Meter::PausedData => &raw mut (*account).seen.paused_full_at,
                Meter::RoamingData => &raw mut (*account).seen.roaming_full_at,
                Meter::Responses => &raw mut (*account).seen.responses_full_at,
            };
            take(full_at.cast(), rate)
        }
    }

    #[inline(always)]
    fn take_initiation(&self, source: u64, rate: Rate) -> bool {
        match SOURCES.get_ptr_mut(&source) {
            // SAFETY: a map lookup gave the pointer.
            Some(full_at) => unsafe { take(full_at, rate) },
            None => {
                // SAFETY: the helper only tells the time.
                let first = Gcra::default().next(rate, unsafe { bpf_ktime_get_ns() });
                // It fails where the kernel has no memory for it: then nothing is remembered.
                let _remembered = SOURCES.insert(&source, &first.unwrap_or_default().raw(), 0);
                true
            }
        }
    }

    #[inline(always)]
    fn take_of_all(&self, lane: Lane, rate: Rate) -> bool {
        // SAFETY: a map lookup gave the pointer.
        CEILINGS.get_ptr_mut(lane as u32).is_none_or(|full_at| unsafe { take(full_at, rate) })
    }
}

impl ExitMemory for Maps {
    #[inline(always)]
    fn has_port(&self, port: u16) -> bool {
        let (word, bit) = port_bit(port);
        PORTS.get(word).is_some_and(|word| word & bit != 0)
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey) {
        // SAFETY: the helper only tells the time.
        let now = unsafe { bpf_ktime_get_ns() };
        // It fails where the kernel has no memory for it: then the rest goes to the host.
        let _noted = FRAGMENTS.insert(key, &now, 0);
    }

    #[inline(always)]
    fn forget_fragment(&self, key: &FragmentKey) {
        // It fails where nothing was noted.
        let _forgotten = FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn is_fragment_noted(&self, key: &FragmentKey) -> bool {
        let Some(noted) = FRAGMENTS.get_ptr(key) else { return false };
        // SAFETY: a map lookup gave the pointer; the helper only tells the time.
        unsafe { is_fresh(noted.read_volatile(), bpf_ktime_get_ns()) }
    }
}

/// Takes one from a bucket. Of two CPUs at the same moment, both may get the same one.
///
/// # Safety
///
/// `full_at` must be within a map's value.
#[inline(always)]
unsafe fn take(full_at: *mut u64, rate: Rate) -> bool {
    // SAFETY: the caller's promise; the helper only tells the time.
    let next = unsafe { Gcra::from_raw(full_at.read_volatile()).next(rate, bpf_ktime_get_ns()) };
    match next {
        Some(next) => {
            // SAFETY: the caller's promise.
            unsafe { full_at.write_volatile(next.raw()) };
            true
        }
        None => false,
    }
}

/// The guard's part of an account, which other CPUs write at the same time.
pub struct Seen(*mut Account);

impl Seen {
    /// The guard's part of the account in `record`, which a map lookup gave.
    #[inline(always)]
    pub fn of(record: *mut Record) -> Self {
        Self(record.cast())
    }

    /// Counts a data message.
    #[inline(always)]
    pub fn add_data(&self, bytes: u64) {
        // SAFETY: a map lookup gave the record; the fields are within it.
        unsafe {
            add(&raw mut (*self.0).seen.datagrams, 1);
            add(&raw mut (*self.0).seen.bytes, bytes);
        }
    }

    /// Counts a handshake response or cookie reply.
    #[inline(always)]
    pub fn add_handshake(&self) {
        // SAFETY: as above.
        unsafe { add(&raw mut (*self.0).seen.handshakes, 1) };
    }

    /// Counts a dropped message.
    #[inline(always)]
    pub fn add_dropped(&self, bytes: u64) {
        // SAFETY: as above.
        unsafe {
            add(&raw mut (*self.0).seen.dropped_datagrams, 1);
            add(&raw mut (*self.0).seen.dropped_bytes, bytes);
        }
    }
}

/// Adds atomically.
///
/// # Safety
///
/// `counter` must be within a map's value.
#[inline(always)]
unsafe fn add(counter: *mut AtomicU64, value: u64) {
    // SAFETY: the caller's promise; the instruction writes these 8 bytes alone.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) counter, in(reg) value) };
}
