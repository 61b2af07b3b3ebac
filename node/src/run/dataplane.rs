//! Starts the workers and the handshake thread.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use anyhow::Context as _;

use super::{ebpf::Ebpf, reload};
use weir_config::Config;
use weir_dataplane::{
    Dataplane, ExitPlan, Io, OnEnd, Shared, Sockets, Start, UdpSegmentation, XskQueues,
};
use weir_host::tun::{self, Tun};
use weir_wireguard::identity::Identities;

/// How the workers work.
pub(super) struct Workers<'a> {
    pub(super) io: Io,
    pub(super) cores: &'a [usize],
    pub(super) xsk: Vec<XskQueues>,
    pub(super) exits: Vec<(ExitPlan, OwnedFd)>,
    pub(super) on_end: OnEnd,
}

/// Binds the sockets, installs the steering programs, and starts the threads.
pub(super) fn start(
    config: &Config,
    shared: Shared,
    identities: Arc<Identities>,
    tun: Tun,
    ebpf: &mut Ebpf,
    workers: Workers<'_>,
) -> anyhow::Result<Dataplane> {
    let Workers { io, cores, xsk, exits, on_end } = workers;
    let port = config.node.listen_port;
    let bind = || {
        weir_dataplane::bind(port).with_context(|| {
            format!(
                "cannot bind UDP port {port}. Fix: stop what uses it (ss -ulpn), or set \
                 node.listen_port."
            )
        })
    };
    let sockets = cores.iter().map(|_| bind()).collect::<anyhow::Result<Vec<_>>>()?;
    let (handshake_sockets, handshakes_steered) = if ebpf.steers() {
        let own = bind()?;
        let readers: Vec<&Sockets> = sockets.iter().chain([&own]).collect();
        let v4: Vec<BorrowedFd<'_>> = readers.iter().map(|pair| pair.v4.as_fd()).collect();
        let v6: Vec<BorrowedFd<'_>> =
            readers.iter().filter_map(|pair| pair.v6.as_ref().map(|v6| v6.as_fd())).collect();
        ebpf.steer_udp(&v4, &v6)?;
        (own, true)
    } else {
        let first = sockets.first().context("there is no worker")?;
        let v6 = first.v6.as_ref().map(|v6| v6.try_clone()).transpose()?;
        (Sockets { v4: first.v4.try_clone()?, v6 }, false)
    };
    if let (Some(program), Some(queue)) = (ebpf.steering_program()?, tun.queues.first()) {
        tun::set_steering(queue.as_fd(), program.as_fd()).context(
            "the kernel does not accept the program that chooses the TUN queue (Linux 4.16 does)",
        )?;
    }
    let start = Start {
        shared,
        identities,
        io,
        cores: cores.to_vec(),
        sockets,
        xsk,
        exits,
        queues: tun.queues,
        handshake_sockets,
        handshakes_steered,
        limits: reload::handshake_limits(&config.node),
        on_end,
    };
    Dataplane::start(start).context("cannot start the workers")
}

/// Whether the kernel segments what is sent.
pub(super) fn segmentation(node: &weir_config::Node) -> UdpSegmentation {
    if node.udp_segmentation { UdpSegmentation::On } else { UdpSegmentation::Off }
}
