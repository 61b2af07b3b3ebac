//! What tries to leave the consumer's machine beside the tunnel.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use socket2::SockRef;

use crate::{
    Lab,
    lab::{CONSUMER_LINK, SERVERS},
};

/// Between two packets of each kind of noise.
const PACE: Duration = Duration::from_millis(5);

/// Everything that tries to leave: both families, names, and sockets that are bound to the outer
/// interface, which no route holds back. It ends when this is dropped.
pub struct Noise {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Noise {
    /// Starts it in the consumer's namespace.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for to in SERVERS {
            for device in [None, Some(CONSUMER_LINK)] {
                let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                let socket = lab.consumer.enter(|| Ok(UdpSocket::bind(any)?))?;
                SockRef::from(&socket).bind_device(device.map(str::as_bytes))?;
                let stop = Arc::clone(&stop);
                threads.push(thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        for port in [9, 53, 853, 443] {
                            socket.send_to(b"noise", (to, port)).ok();
                        }
                        thread::sleep(PACE);
                    }
                }));
            }
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
