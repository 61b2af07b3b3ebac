//! A TUN device with one queue, without offloads.

#![expect(unsafe_code, reason = "an ioctl on /dev/net/tun")]

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context as _, bail};

/// A TUN device. It is gone when the file is closed.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) file: File,
    pub(super) index: u32,
}

impl Device {
    /// Makes a device in the network namespace of this thread.
    pub(super) fn create(name: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun. Fix: run as root, and: modprobe tun")?;
        // SAFETY: all bits zero are an `ifreq` of plain numbers and null pointers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            bail!("{name:?} is too long for an interface");
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        // The flags are 16 bits, of which the kernel takes all.
        request.ifr_ifru.ifru_flags = flags as u16 as i16;
        // SAFETY: the request reads and writes one `ifreq`.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if made < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot make the interface {name}. Fix: run as root"));
        }
        let name = CString::new(name)?;
        // SAFETY: the name ends with a zero.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error()).context("cannot find the new interface"),
            index => Ok(Self { file, index }),
        }
    }
}
