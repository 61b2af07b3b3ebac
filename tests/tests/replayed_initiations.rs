//! Initiations that somebody has recorded are refused for as long as the keys are valid.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_common::wire::message_type;
use weir_testkit::Tunnel;
use weir_tests::{
    Lab, Namespace, Node, Settings, lab::NODE_V4, newcomer::keys_of, node::Added, until,
};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// More than the keypairs that boringtun keeps: as many replays would push the present one out.
const RECORDED: usize = 9;

/// A consumer whose handshakes somebody records.
struct Consumer {
    tunnel: Tunnel,
    socket: UdpSocket,
}

impl Consumer {
    fn new(namespace: &Namespace, config: &str) -> Result<Self> {
        let (private, node) = keys_of(config)?;
        Ok(Self { tunnel: Tunnel::new(private, node, 7), socket: socket(namespace)? })
    }

    /// Shakes hands, confirms it with a keepalive, and returns the initiation.
    fn shake_hands(&mut self) -> Result<Vec<u8>> {
        let initiation = self.tunnel.initiation().context("no initiation")?;
        self.socket.send(&initiation)?;
        self.socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        let mut buffer = [0; 2048];
        loop {
            let len = self.socket.recv(&mut buffer).context("no response")?;
            let message = buffer.get(..len).unwrap_or_default();
            if message.first() != Some(&message_type::RESPONSE) {
                continue;
            }
            let keepalive = self.tunnel.handshake(message).context("the response is refused")?;
            self.socket.send(&keepalive)?;
            return Ok(initiation);
        }
    }
}

fn socket(namespace: &Namespace) -> Result<UdpSocket> {
    let socket = namespace.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
    socket.connect(SocketAddr::new(IpAddr::from(NODE_V4), 51820))?;
    Ok(socket)
}

/// Has `between` done to the node after several handshakes, and then sends these again from another
/// port: none is answered, and the consumer goes on.
fn replays_are_refused_after(
    between: impl FnOnce(&mut Node<'_>, &Added) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("node", "handshakes_per_source_burst", "100");
    let mut node = Node::start(&lab.node, settings)?;
    let added = node.session_add("alice")?;
    let mut alice = Consumer::new(&lab.consumer, &added.config)?;
    let mut recorded = Vec::new();
    for _ in 0..RECORDED {
        recorded.push(alice.shake_hands()?);
    }
    between(&mut node, &added)?;

    let replayed = node.drops("handshake", "replay")?;
    let thief = socket(&lab.consumer)?;
    for initiation in &recorded {
        thief.send(initiation)?;
    }
    until("all replays are refused as such", Duration::from_secs(20), || {
        let refused = node.drops("handshake", "replay")? - replayed;
        ensure!(refused == RECORDED as u64, "{refused} of {RECORDED}");
        Ok(())
    })?;
    thief.set_nonblocking(true)?;
    let answer = thief.recv(&mut [0; 2048]).map_err(|error| error.kind());
    ensure!(answer == Err(ErrorKind::WouldBlock), "a replay is answered: {answer:?}");
    alice.shake_hands().context("alice herself is refused")?;
    Ok(())
}

#[test]
fn recorded_initiations_are_refused_after_a_kill() -> Result<()> {
    replays_are_refused_after(|node, _| {
        node.kill()?;
        node.restart()
    })
}

#[test]
fn recorded_initiations_are_refused_after_a_clean_restart() -> Result<()> {
    replays_are_refused_after(|node, _| {
        node.stop()?;
        node.restart()
    })
}

#[test]
fn recorded_initiations_are_refused_by_a_new_session_with_the_same_key() -> Result<()> {
    replays_are_refused_after(|node, added| {
        node.weir(&["session", "remove", &added.session.id])?;
        node.weir(&["session", "add", "--public-key", &added.session.public_key])?;
        Ok(())
    })
}
