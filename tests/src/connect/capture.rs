//! What leaves the consumer's machine, seen at the other end of its cable.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Lab, lab::CONSUMER_LINK};

/// Counts what leaves the consumer's outer interface, at the other end of the cable. ARP, neighbour
/// discovery and DHCP never go further than that.
pub struct Capture {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Datagrams to the nodes' endpoints.
    tunnel: AtomicU64,
    /// Everything else, as text.
    beside: Mutex<Vec<String>>,
}

impl Capture {
    /// Starts it. Datagrams to `endpoints` belong there.
    ///
    /// # Errors
    /// Without root.
    pub fn start(lab: &Lab, endpoints: Vec<SocketAddr>) -> Result<Self> {
        let text = lab.consumer.ip(&format!("-o link show {CONSUMER_LINK}"))?;
        let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let mac: Vec<u8> = mac
            .context("no MAC address")?
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?;
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket =
            lab.internet.enter(|| Ok(Socket::new(Domain::PACKET, Type::RAW, Some(all))?))?;
        socket.set_recv_buffer_size(16 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || watch(&socket, &mac, &endpoints, &seen, &stop)
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Datagrams to the nodes so far.
    #[must_use]
    pub fn tunnel(&self) -> u64 {
        self.seen.tunnel.load(Relaxed)
    }

    /// What left beside the tunnel since the last call.
    ///
    /// # Panics
    /// If the capture has.
    #[must_use]
    pub fn beside(&self) -> Vec<String> {
        // What is under way has arrived by then.
        thread::sleep(Duration::from_millis(100));
        std::mem::take(&mut *self.seen.beside.lock().expect("the capture runs"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn watch(
    mut socket: &Socket,
    mac: &[u8],
    endpoints: &[SocketAddr],
    seen: &Seen,
    stop: &AtomicBool,
) {
    let mut frame = [0; 65536];
    while !stop.load(Relaxed) {
        let len = match socket.read(&mut frame) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => {
                let text = format!("the capture failed: {error}");
                seen.beside.lock().expect("nobody panics with it").push(text);
                return;
            }
        };
        let frame = &frame[..len];
        if frame.get(6..12) != Some(mac) {
            continue;
        }
        match judge(frame, endpoints) {
            Judgement::Tunnel => drop(seen.tunnel.fetch_add(1, Relaxed)),
            Judgement::Local => {}
            Judgement::Beside(text) => {
                seen.beside.lock().expect("nobody panics with it").push(text);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Tunnel,
    Local,
    Beside(String),
}

fn judge(frame: &[u8], endpoints: &[SocketAddr]) -> Judgement {
    let beside = || Judgement::Beside(format!("{:02x?}", &frame[..frame.len().min(64)]));
    let port = |at: usize| frame.get(at..at + 2).map(|x| u16::from_be_bytes([x[0], x[1]]));
    let (to, protocol, payload) = match frame.get(12..14) {
        Some([8, 6]) => return Judgement::Local,
        Some([8, 0]) if frame.len() >= 34 => {
            let to: [u8; 4] = frame[30..34].try_into().expect("four bytes");
            (IpAddr::from(to), frame[23], 14 + usize::from(frame[14] & 0xf) * 4)
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            let to: [u8; 16] = frame[38..54].try_into().expect("sixteen bytes");
            // Hop-by-hop options stand before a report of multicast groups.
            let (next, at) = match frame[20] {
                0 => (*frame.get(54).unwrap_or(&0), 62),
                next => (next, 54),
            };
            (IpAddr::from(to), next, at)
        }
        _ => return beside(),
    };
    match protocol {
        17 => match (port(payload), port(payload + 2)) {
            (_, Some(port)) if endpoints.contains(&SocketAddr::new(to, port)) => Judgement::Tunnel,
            (Some(68), Some(67)) | (Some(546), Some(547)) => Judgement::Local,
            _ => beside(),
        },
        58 if matches!(frame.get(payload), Some(133 | 135 | 136 | 143)) => Judgement::Local,
        _ => beside(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(to: [u8; 4], from_port: u16, to_port: u16) -> Vec<u8> {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 0]);
        (frame[14], frame[23]) = (0x45, 17);
        frame[30..34].copy_from_slice(&to);
        frame[34..36].copy_from_slice(&from_port.to_be_bytes());
        frame[36..38].copy_from_slice(&to_port.to_be_bytes());
        frame
    }

    #[test]
    fn only_datagrams_to_the_node_and_what_stays_on_the_link_belong() {
        let node = [SocketAddr::from(([45, 80, 2, 2], 51820))];
        assert_eq!(judge(&udp([45, 80, 2, 2], 5, 51820), &node), Judgement::Tunnel);
        assert_eq!(judge(&udp([255; 4], 68, 67), &node), Judgement::Local);
        for frame in [udp([45, 80, 2, 2], 5, 53), udp([45, 80, 2, 3], 5, 51820)] {
            assert!(matches!(judge(&frame, &node), Judgement::Beside(_)));
        }
        assert!(matches!(judge(&[0; 20], &node), Judgement::Beside(_)));
    }
}
