//! The eBPF programs, loaded: the guard on the uplink, and the steering to workers.

mod attach;
mod counts;
mod detach;
mod error;
mod pins;
mod trial;

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, ReusePortSockArray, XskMap},
    programs::{
        Program, ProgramError, SkReuseport, SocketFilter, TestRun as _, TestRunOptions, Xdp,
    },
};
use aya_log::EbpfLogger;
use rustix::process::{Resource, Rlimit, setrlimit};
use weir_common::{
    GuardConfig,
    exit::{EXIT_CONFIG_LEN, ExitConfig, PORT_WORDS, port_bit},
    gcra::Rate,
    guard::{GUARD_CONFIG_LEN, name},
    mac1::{Mac1Key, Mac1Keys},
    steering::{Family, Reader},
};

use self::{
    attach::Attached,
    pins::{Pins, Source},
};
pub use self::{
    attach::{XdpMode, XdpPolicy},
    counts::GuardCounts,
    error::GuardError,
    trial::try_load,
};
use crate::log::GuardLog;
use weir_accounts::Accounts;

/// The compiled programs: `cargo xtask build-ebpf` makes them from node-ebpf.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../weir.bpf.o");

/// What the guard is loaded with.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// A directory of this node's own within a bpffs. It is made if it is not there.
    pub pins: PathBuf,
    /// The programs' parameters. The accounts get one record for each of its slots.
    pub config: GuardConfig,
    /// Loads the guard that older kernels get, which takes frames in one piece only.
    pub linear: bool,
}

/// The loaded programs. Dropping it is like being killed: the accounts and the guard on the uplink
/// stay, for the next node to take over. [`Guard::detach_and_unpin`] leaves nothing.
#[derive(Debug)]
pub struct Guard {
    ebpf: Ebpf,
    log: Option<GuardLog>,
    accounts: Arc<Accounts>,
    config: GuardConfig,
    /// The bitmap of external ports as it is in the kernel.
    exit_ports: Box<[u64; PORT_WORDS]>,
    pins: Pins,
    xdp: &'static str,
    attached: Option<Attached>,
}

/// What a program answered in a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The program's return value.
    pub value: u32,
    /// How long one run took on average.
    pub duration: Duration,
}

/// How long a loaded program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Its name.
    pub program: &'static str,
    /// Its instructions.
    pub loaded: u32,
    /// How many the verifier walked through, of at most a million; kernels since 5.16 tell.
    pub verified: Option<u32>,
}

impl Guard {
    /// Loads the programs and the accounts; those of a killed node are taken over. If it fails, it
    /// leaves no pin that was not there before.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses (the error says what it wants), or when the pinned accounts
    /// are of another layout.
    pub fn load(options: &GuardOptions) -> Result<Self, GuardError> {
        raise_memlock();
        let pins = Pins::open(&options.pins)?;
        let slots = pins.accounts_to_load(options.config.slots)?;
        let loaded = Self::load_with(options, pins, slots);
        if loaded.is_err() {
            pins::discard(&options.pins, slots);
        }
        loaded
    }

    fn load_with(options: &GuardOptions, pins: Pins, slots: Source) -> Result<Self, GuardError> {
        let config = options.config;
        let path = pins.accounts_path(slots);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(name::ACCOUNTS, slots.count())
            .map_max_entries(name::SOCKETS, 2 * (config.workers + 1))
            .map_pin_path(name::ACCOUNTS, path.as_path())
            .load(OBJECT)
            .map_err(GuardError::load)?;
        let xdp = load_xdp(&mut ebpf, options.linear)?;
        let reuseport: &mut SkReuseport = program(&mut ebpf, name::REUSEPORT)?;
        reuseport.load().map_err(|error| GuardError::program(name::REUSEPORT, error))?;
        let steer: &mut SocketFilter = program(&mut ebpf, name::STEER)?;
        steer.load().map_err(|error| GuardError::program(name::STEER, error))?;
        // It takes its map away from the object, which the programs must have been given before.
        let log = EbpfLogger::init(&mut ebpf).map(GuardLog).map_err(GuardError::Log)?;
        let accounts = pins.map_accounts(&ebpf, slots)?;
        let mut guard = Self {
            ebpf,
            log: Some(log),
            accounts: Arc::new(accounts),
            config,
            exit_ports: Box::new([0; PORT_WORDS]),
            pins,
            xdp,
            attached: None,
        };
        guard.configure(config)?;
        Ok(guard)
    }

    /// The accounts that the guard counts into. There may be more than were asked for, if a
    /// killed node left some that are in use.
    #[must_use]
    pub fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts)
    }

    /// The end of the programs' log, once. The caller must keep it as long as the guard.
    pub fn take_log(&mut self) -> Option<GuardLog> {
        self.log.take()
    }

    /// Puts the node's UDP sockets under the steering program. `v4` and `v6` are each the workers'
    /// sockets in the order of the workers, and then the handshake thread's; either may be empty.
    /// The sockets are bound already, with `SO_REUSEPORT`.
    ///
    /// # Errors
    ///
    /// Fails when the number of sockets is not that of the workers and one, or when the kernel
    /// refuses a socket.
    pub fn steer_udp(
        &mut self,
        v4: &[BorrowedFd<'_>],
        v6: &[BorrowedFd<'_>],
    ) -> Result<(), GuardError> {
        let config = self.config;
        let map = self.ebpf.map_mut(name::SOCKETS).ok_or(GuardError::Object(name::SOCKETS))?;
        let mut sockets = ReusePortSockArray::try_from(map).map_err(GuardError::Map)?;
        for (family, given) in [(Family::V4, v4), (Family::V6, v6)] {
            let wanted = config.workers as usize + 1;
            if !given.is_empty() && given.len() != wanted {
                return Err(GuardError::Sockets { given: given.len(), wanted });
            }
            let readers = (0..config.workers).map(Reader::Worker).chain([Reader::Handshake]);
            for (reader, socket) in readers.zip(given) {
                sockets
                    .set(config.socket_index(family, reader), socket, 0)
                    .map_err(GuardError::Map)?;
            }
        }
        let program: &mut SkReuseport = program(&mut self.ebpf, name::REUSEPORT)?;
        for socket in [v4.first(), v6.first()].into_iter().flatten() {
            program.attach(socket).map_err(|error| GuardError::program(name::REUSEPORT, error))?;
        }
        Ok(())
    }

    /// Puts sessions' data on the XSK fast path at these receive queues of the uplink. A socket that
    /// is closed takes itself out again.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses a socket.
    pub fn use_fast_path<'a>(
        &mut self,
        sockets: impl Iterator<Item = (u32, BorrowedFd<'a>)>,
    ) -> Result<(), GuardError> {
        let map = self.ebpf.map_mut(name::XSKS).ok_or(GuardError::Object(name::XSKS))?;
        let mut map = XskMap::try_from(map).map_err(GuardError::Map)?;
        for (queue, socket) in sockets {
            map.set(queue, socket.as_raw_fd(), 0).map_err(GuardError::Map)?;
        }
        Ok(())
    }

    /// The program for `TUNSETSTEERINGEBPF`. The TUN device holds it from then on.
    ///
    /// # Errors
    ///
    /// Fails when the program is not loaded, which [`Guard::load`] has seen to.
    pub fn steering_program_fd(&self) -> Result<BorrowedFd<'_>, GuardError> {
        let program = self.ebpf.program(name::STEER).ok_or(GuardError::Object(name::STEER))?;
        let fd = program.fd().map_err(|error| GuardError::program(name::STEER, error))?;
        Ok(fd.as_fd())
    }

    /// What the guard has counted since it was loaded.
    ///
    /// # Errors
    ///
    /// Fails when the counters cannot be read.
    pub fn counts(&self) -> Result<GuardCounts, GuardError> {
        let map = self.ebpf.map(name::VERDICTS).ok_or(GuardError::Object(name::VERDICTS))?;
        let map = PerCpuArray::<_, [u64; 2]>::try_from(map).map_err(GuardError::Map)?;
        GuardCounts::read(&map).map_err(GuardError::Map)
    }

    /// Handshake messages may be for this key too. There are two places: a second key that was
    /// there is forgotten.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not take it.
    pub fn add_mac1_key(&mut self, key: Mac1Key) -> Result<(), GuardError> {
        // The kernel may read while we write: the new key counts only once it is written.
        let Mac1Keys { live, keys: [first, _] } = self.config.mac1;
        let (written, counting) = match live {
            0 => (Mac1Keys { live: 0, keys: [key; 2] }, Mac1Keys::one(key)),
            _ => (Mac1Keys { live: 1, keys: [first, key] }, Mac1Keys::both(first, key)),
        };
        self.set_mac1(written)?;
        self.set_mac1(counting)
    }

    /// Handshake messages may no longer be for the first of two keys: the second takes its place.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not take it.
    pub fn retire_mac1_key(&mut self) -> Result<(), GuardError> {
        let Mac1Keys { live: 2, keys: [_, second] } = self.config.mac1 else { return Ok(()) };
        // While it is written in the first place, it counts in the second.
        self.set_mac1(Mac1Keys::both(second, second))?;
        self.set_mac1(Mac1Keys::one(second))
    }

    fn set_mac1(&mut self, mac1: Mac1Keys) -> Result<(), GuardError> {
        self.configure(GuardConfig { mac1, ..self.config })
    }

    /// Changes how many initiations one source may send, and how many pass of all sources together
    /// on each CPU.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not take it.
    pub fn set_initiations(&mut self, one_source: Rate, ceiling: Rate) -> Result<(), GuardError> {
        self.configure(GuardConfig { initiations: one_source, ceiling, ..self.config })
    }

    /// Sends return traffic of the node's own NAT to the sockets of the fast path: what is for these
    /// addresses and, where they are not routed, for these ports (bit `port % 64` of word
    /// `port / 64`). The node's own UDP port is never one of them. What has no socket at its queue
    /// goes to the host.
    ///
    /// It replaces what was set before, while frames arrive. For a moment the guard may see the new
    /// ports with the old addresses, or an address half written, and send a frame the wrong way.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not take it. Some of the ports may have been replaced then.
    pub fn set_exit(
        &mut self,
        exit: &ExitConfig,
        ports: &[u64; PORT_WORDS],
    ) -> Result<(), GuardError> {
        let map = self.ebpf.map_mut(name::PORTS).ok_or(GuardError::Object(name::PORTS))?;
        let mut map = Array::<_, u64>::try_from(map).map_err(GuardError::Map)?;
        let (own_word, own_bit) = port_bit(self.config.port);
        for ((index, set), wanted) in (0..).zip(self.exit_ports.iter_mut()).zip(ports) {
            let wanted = if index == own_word { wanted & !own_bit } else { *wanted };
            if *set != wanted {
                map.set(index, wanted, 0).map_err(GuardError::Map)?;
                *set = wanted;
            }
        }
        let map = self.ebpf.map_mut(name::EXIT).ok_or(GuardError::Object(name::EXIT))?;
        let mut map = Array::<_, [u8; EXIT_CONFIG_LEN]>::try_from(map).map_err(GuardError::Map)?;
        map.set(0, exit.to_bytes(), 0).map_err(GuardError::Map)
    }

    /// Takes the guard off the interface, and removes every pin.
    ///
    /// # Errors
    ///
    /// Fails when a pin cannot be removed; the others are removed all the same.
    pub fn detach_and_unpin(self) -> Result<(), GuardError> {
        let Self { attached, pins, .. } = self;
        drop(attached);
        pins.remove()
    }

    /// Runs a program ([`name`]) over a packet without an interface (`BPF_PROG_TEST_RUN`). An
    /// Ethernet header comes first in any case; the steering program is shown what follows it.
    ///
    /// # Errors
    ///
    /// Fails when the program is not loaded or takes no test runs, or when the packet is shorter
    /// than an Ethernet header.
    pub fn test_run(
        &self,
        program: &'static str,
        packet: &[u8],
        repeat: u32,
    ) -> Result<Answer, GuardError> {
        let found = self.ebpf.program(program).ok_or(GuardError::Object(program))?;
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
        let result = match found {
            Program::Xdp(xdp) => xdp.test_run(options),
            Program::SocketFilter(filter) => filter.test_run(options),
            _ => return Err(GuardError::Object(program)),
        };
        let result = result.map_err(|error| GuardError::program(program, error))?;
        Ok(Answer { value: result.return_value, duration: result.duration })
    }

    /// How long each loaded program is.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell.
    pub fn instructions(&self) -> Result<Vec<Instructions>, GuardError> {
        let mut all = Vec::new();
        for name in [self.xdp, name::REUSEPORT, name::STEER] {
            let found = self.ebpf.program(name).ok_or(GuardError::Object(name))?;
            let fail = |error| GuardError::program(name, error);
            let info = found.info().map_err(fail)?;
            // Eight bytes each.
            let loaded = info.size_translated().unwrap_or_default() / 8;
            let verified = info.verified_instruction_count();
            all.push(Instructions { program: name, loaded, verified });
        }
        Ok(all)
    }

    /// The name of the guard that is loaded, for [`Guard::test_run`].
    #[must_use]
    pub fn xdp_program(&self) -> &'static str {
        self.xdp
    }

    fn configure(&mut self, config: GuardConfig) -> Result<(), GuardError> {
        let map = self.ebpf.map_mut(name::CONFIG).ok_or(GuardError::Object(name::CONFIG))?;
        let mut map = Array::<_, [u8; GUARD_CONFIG_LEN]>::try_from(map).map_err(GuardError::Map)?;
        map.set(0, config.to_bytes(), 0).map_err(GuardError::Map)?;
        self.config = config;
        Ok(())
    }
}

/// Loads the guard that the kernel can take, and says which.
fn load_xdp(ebpf: &mut Ebpf, linear: bool) -> Result<&'static str, GuardError> {
    if !linear {
        let guard: &mut Xdp = program(ebpf, name::GUARD)?;
        match guard.load() {
            Ok(()) => return Ok(name::GUARD),
            Err(error) if error::is_refusal(&error) => {
                return Err(GuardError::program(name::GUARD, error));
            }
            Err(error) => {
                let (error, _) = GuardError::program(name::GUARD, error).explain();
                tracing::warn!(
                    error,
                    "this kernel does not accept the guard for multi-buffer frames (Linux 5.18 \
                     does): on an uplink with a large MTU the guard may run in generic mode"
                );
            }
        }
    }
    let guard: &mut Xdp = program(ebpf, name::GUARD_LINEAR)?;
    guard.load().map_err(|error| GuardError::program(name::GUARD_LINEAR, error))?;
    Ok(name::GUARD_LINEAR)
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, GuardError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(GuardError::Object(name))?;
    program.try_into().map_err(|error| GuardError::program(name, error))
}

/// Kernels before 5.11 count maps against this limit. Without CAP_SYS_RESOURCE it cannot be
/// raised, and does not have to be on newer ones.
fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "cannot raise the locked memory limit");
    }
}
