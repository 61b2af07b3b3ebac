//! The node's external ports: which there are, and whose they are.

/// The number of 64-bit words in a bitmap of all ports.
const WORDS: usize = 1 << 10;

/// The external ports of the node, as a bitmap. Aligned blocks of `block` ports are dealt out to the
/// workers in turn, and by each of them to its sessions.
#[derive(Clone, PartialEq, Eq)]
pub struct Ports {
    words: Box<[u64; WORDS]>,
    block: u16,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ports in blocks of {}", self.count(), self.block)
    }
}

impl Ports {
    /// The ports from `first` to `last`, in blocks of `block`, a power of two.
    #[must_use]
    pub fn new(first: u16, last: u16, block: u16) -> Self {
        let mut ports =
            Self { words: Box::new([0; WORDS]), block: block.max(1).next_power_of_two() };
        for port in first.max(1)..=last {
            if let Some(word) = ports.words.get_mut(usize::from(port / 64)) {
                *word |= 1 << (port % 64);
            }
        }
        ports
    }

    /// Leaves a port to the host.
    pub fn spare(&mut self, port: u16) {
        if let Some(word) = self.words.get_mut(usize::from(port / 64)) {
            *word &= !(1 << (port % 64));
        }
    }

    /// Whether the port is the node's.
    #[must_use]
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.words.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0)
    }

    /// The number of ports.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The number of ports in a block.
    #[must_use]
    pub fn block_len(&self) -> u16 {
        self.block
    }

    /// The bitmap: bit `port % 64` of word `port / 64`. The guard's map has the same form.
    #[must_use]
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Which of `workers` has the sessions that use the port.
    #[must_use]
    #[inline]
    pub fn worker_of(&self, port: u16, workers: u32) -> u32 {
        u32::from(port / self.block).checked_rem(workers).unwrap_or_default()
    }
}

/// A block of ports of one external address. A session has whole blocks, so that an abuse notice can
/// be answered by address, port and time alone (RFC 6888, REQ-12; RFC 7422).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortBlock {
    /// The index of the external address.
    pub address: u8,
    /// The first port of the block.
    pub first: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spared_port_is_the_hosts() {
        let mut ports = Ports::new(4096, 8191, 32);
        assert_eq!((ports.count(), ports.block_len()), (4096, 32));
        assert!(ports.contains(4096) && ports.contains(8191));
        assert!(!ports.contains(4095) && !ports.contains(8192) && !ports.contains(0));
        ports.spare(5000);
        assert!(!ports.contains(5000) && ports.contains(5001));
        assert_eq!(ports.count(), 4095);
    }

    #[test]
    fn the_ports_of_a_block_have_one_worker() {
        let ports = Ports::new(1, 65535, 32);
        for port in 0..=65535u16 {
            assert_eq!(ports.worker_of(port, 3), ports.worker_of(port / 32 * 32, 3));
        }
        assert_eq!(ports.worker_of(64, 3), 2);
        assert_eq!(ports.worker_of(96, 3), 0);
        assert_eq!(ports.worker_of(96, 0), 0);
    }
}
