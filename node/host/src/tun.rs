//! The TUN device: one queue for each worker, with offloads, so that one read or write moves a
//! super-packet.

#![expect(unsafe_code, reason = "ioctls on /dev/net/tun")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use libc::{c_int, c_uint};

/// The header before each packet: `struct virtio_net_hdr`, in bytes.
pub(crate) const VNET_HEADER_LEN: usize = 10;

/// What the kernel may hand to us, and take from us, in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunOffloads {
    /// TCP segments of one flow, IPv4 and IPv6.
    pub tso: bool,
    /// UDP datagrams of one flow, IPv4 and IPv6. Linux 6.2 and later.
    pub uso: bool,
}

/// A TUN device. It is gone when all of its queues are closed.
#[derive(Debug)]
pub struct Tun {
    /// The interface's name.
    pub name: String,
    /// The interface's number.
    pub index: u32,
    /// One file descriptor for each worker; they do not block.
    pub queues: Vec<OwnedFd>,
    /// What it can carry.
    pub offloads: TunOffloads,
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// No /dev/net/tun.
    #[error(
        "no /dev/net/tun. Fix: modprobe tun; in a container, give it the device \
         (docker run --device /dev/net/tun)."
    )]
    NoDevice,
    /// Not allowed.
    #[error(
        "not allowed to create a TUN device. Fix: start weir as root, or with the capability \
         CAP_NET_ADMIN and access to /dev/net/tun."
    )]
    NotAllowed,
    /// The name is taken.
    #[error(
        "the interface {0:?} exists already and is not weir's. Fix: set another \
         tunnel.interface in the configuration, or remove it: ip link delete {0}."
    )]
    Taken(String),
    /// Anything else.
    #[error("cannot {what} the TUN device: {source}")]
    Other {
        /// What failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Tun {
    /// Makes a device with as many queues as there are workers.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and what to do about it.
    pub fn create(name: &str, queues: usize) -> Result<Self, TunError> {
        let mut opened = Vec::with_capacity(queues);
        for number in 0..queues.max(1) {
            opened.push(open_queue(name, number == 0)?);
        }
        let first = opened.first().map(AsFd::as_fd).ok_or(TunError::NoDevice)?;
        let offloads = set_offloads(first)?;
        let size = VNET_HEADER_LEN as c_int;
        // SAFETY: the request reads one int.
        check(unsafe { libc::ioctl(first.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
            .map_err(|source| TunError::Other { what: "set the header of", source })?;
        let index = index_of(name).map_err(|source| TunError::Other { what: "find", source })?;
        Ok(Self { name: name.to_owned(), index, queues: opened, offloads })
    }
}

/// Lets a socket filter choose the queue of each packet: its return value modulo the number of
/// queues. `queue` is any queue of the device.
///
/// # Errors
///
/// Fails when the kernel refuses the program.
pub fn set_steering(queue: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let program: c_int = program.as_raw_fd();
    // SAFETY: the request reads one int.
    let result =
        unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const program) };
    check(result)
}

fn open_queue(name: &str, first: bool) -> Result<OwnedFd, TunError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TunError::NoDevice,
            io::ErrorKind::PermissionDenied => TunError::NotAllowed,
            _ if error.raw_os_error() == Some(libc::ENODEV) => TunError::NoDevice,
            _ => TunError::Other { what: "open", source: error },
        })?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    if first {
        // Never a queue of a device that somebody else has made.
        flags |= libc::IFF_TUN_EXCL;
    }
    attach(&file, name, flags).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EINVAL) if first && index_of(name).is_ok() => {
            TunError::Taken(name.to_owned())
        }
        Some(libc::EPERM) => TunError::NotAllowed,
        _ => TunError::Other { what: "make", source: error },
    })?;
    Ok(file.into())
}

fn attach(file: &File, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = request(name)?;
    // The flags are 16 bits, of which the kernel takes all.
    request.ifr_ifru.ifru_flags = flags as u16 as i16;
    // SAFETY: the request reads and writes one `ifreq`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

fn set_offloads(queue: BorrowedFd<'_>) -> Result<TunOffloads, TunError> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let set = |bits: c_uint| {
        // SAFETY: the request takes its argument by value.
        check(unsafe {
            libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits))
        })
    };
    if set(tcp | udp).is_ok() {
        return Ok(TunOffloads { tso: true, uso: true });
    }
    if set(tcp).is_ok() {
        return Ok(TunOffloads { tso: true, uso: false });
    }
    // Packets one by one, with their checksums: every device can do that.
    set(0).map_err(|source| TunError::Other { what: "set the offloads of", source })?;
    Ok(TunOffloads { tso: false, uso: false })
}

/// The number of an interface in the namespace of this thread.
pub(super) fn index_of(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the name ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// An `ifreq` for an interface, otherwise zero.
pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all bits zero are an `ifreq` of plain numbers and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
