//! The guard on the uplink: native, else generic, else none, as the policy says.

use aya::programs::{
    ProgramError, Xdp, XdpMode as Flags,
    links::{FdLink, LinkError, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};
use serde::{Deserialize, Serialize};

use super::{
    Guard, GuardConfig, GuardError,
    pins::{LinkPin, remove_link},
    program,
};

/// Which XDP modes the operator accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpPolicy {
    /// Native, else generic, else none.
    #[default]
    Auto,
    /// Native or an error.
    Native,
    /// Generic or an error.
    Generic,
    /// None.
    Off,
    /// Native, else generic, else an error.
    Required,
}

/// How the guard is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's network stack, behind GRO.
    Generic,
    /// Not at all.
    Off {
        /// Why.
        reason: String,
    },
}

impl XdpMode {
    /// The mode in one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off { .. } => "off",
        }
    }
}

/// The link that holds the guard on its interface. The pin holds it too.
#[derive(Debug)]
pub(super) struct Attached {
    _link: FdLink,
}

impl Guard {
    /// Attaches the guard to an interface of the network namespace that the thread is in. A
    /// killed node's guard on it is replaced without a gap; on another interface it is removed.
    ///
    /// # Errors
    ///
    /// Fails when the policy wants a mode that cannot be had; the error says why.
    pub fn attach(&mut self, ifindex: u32, policy: XdpPolicy) -> Result<XdpMode, GuardError> {
        let modes: &[XdpMode] = match policy {
            XdpPolicy::Auto | XdpPolicy::Required => &[XdpMode::Native, XdpMode::Generic],
            XdpPolicy::Native => &[XdpMode::Native],
            XdpPolicy::Generic => &[XdpMode::Generic],
            XdpPolicy::Off => &[],
        };
        self.attached = None;
        let mut left = self.pins.links(ifindex)?;
        left.retain(|link| link.here && modes.contains(&link.mode));
        for link in self.pins.links(ifindex)? {
            if !left.contains(&link) {
                remove_link(&link.path)?;
            }
        }
        for link in left {
            if self.take_over(&link)? {
                return Ok(link.mode);
            }
        }

        let mut reason = "the configuration says so".to_owned();
        for mode in modes {
            match self.attach_new(ifindex, mode) {
                Ok(()) => return Ok(mode.clone()),
                Err(error) if policy == XdpPolicy::Auto || *mode != modes[modes.len() - 1] => {
                    reason = error.to_string();
                    tracing::info!(mode = mode.as_str(), %error, "no XDP in this mode");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(XdpMode::Off { reason })
    }

    /// Puts our program on a link that a node before us pinned. Says no if that is not to be had
    /// any more, because the interface is gone.
    fn take_over(&mut self, pin: &LinkPin) -> Result<bool, GuardError> {
        self.expect_super_packets(&pin.mode)?;
        match self.replace_program(pin) {
            Ok(link) => {
                self.attached = Some(Attached { _link: link });
                Ok(true)
            }
            Err(error) => {
                tracing::info!(%error, "the XDP link of an earlier run cannot be used");
                remove_link(&pin.path)?;
                Ok(false)
            }
        }
    }

    fn replace_program(&mut self, pin: &LinkPin) -> Result<FdLink, GuardError> {
        let fail = |error: LinkError| GuardError::link(pin.path.clone(), error);
        let link = FdLink::from(PinnedLink::from_pin(&pin.path).map_err(fail)?);
        let link = XdpLink::try_from(link).map_err(fail)?;
        let name = self.xdp;
        let guard: &mut Xdp = program(&mut self.ebpf, name)?;
        let id = guard.attach_to_link(link).map_err(|error| GuardError::program(name, error))?;
        take_link(guard, id).map_err(|error| GuardError::program(name, error))
    }

    fn attach_new(&mut self, ifindex: u32, mode: &XdpMode) -> Result<(), GuardError> {
        self.expect_super_packets(mode)?;
        let flags = if *mode == XdpMode::Native { Flags::Driver } else { Flags::Skb };
        let fail = |error: ProgramError| GuardError::attach(ifindex, mode, &error);
        let name = self.xdp;
        let guard: &mut Xdp = program(&mut self.ebpf, name)?;
        let id = guard.attach_to_if_index(ifindex, flags).map_err(fail)?;
        let link = take_link(guard, id).map_err(fail)?;
        let path = self
            .pins
            .link_path(ifindex, mode)
            .map_err(|error| GuardError::pin("/proc/thread-self/ns/net".into(), error))?;
        let pinned = link.pin(&path).map_err(|error| GuardError::pin(path, error))?;
        self.attached = Some(Attached { _link: pinned.into() });
        Ok(())
    }

    /// Generic XDP runs behind GRO, native XDP before it.
    fn expect_super_packets(&mut self, mode: &XdpMode) -> Result<(), GuardError> {
        let super_packets = u16::from(*mode == XdpMode::Generic);
        self.configure(GuardConfig { super_packets, ..self.config })
    }
}

/// The link as a file descriptor, which kernels since 5.9 give.
fn take_link(guard: &mut Xdp, id: XdpLinkId) -> Result<FdLink, ProgramError> {
    let link = guard.take_link(id)?;
    FdLink::try_from(link).map_err(|error| {
        ProgramError::IOError(std::io::Error::other(format!(
            "this kernel cannot pin the XDP link: {error}"
        )))
    })
}
