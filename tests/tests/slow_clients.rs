//! Clients that have not authenticated hold no port of the node.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Lab, Node, Settings, http};

const API: u16 = 9588;
const METRICS: u16 = 9587;
/// More than either port ever had places for.
const CLIENTS: usize = 140;

#[test]
fn requests_that_never_end_are_ended_and_others_are_served_meanwhile() -> Result<()> {
    let lab = Lab::new()?;
    let api = format!("\"127.0.0.1:{API}\"");
    let _node = Node::start(&lab.node, Settings::default().with("api", "http", &api))?;
    let connect = |port| -> Result<TcpStream> {
        let mut stream = lab.node.enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?))?;
        stream.write_all(b"GET / HTTP/1.1\r\nX")?;
        Ok(stream)
    };
    let mut slow = Vec::with_capacity(2 * CLIENTS);
    for port in [API, METRICS].into_iter().cycle().take(2 * CLIENTS) {
        slow.push(connect(port)?);
    }
    // The longest that a stranger may stay is 20 s.
    for _ in 0..60 {
        for port in [API, METRICS] {
            let (head, _) =
                http::ask(&lab.node, port, "/health").context("nobody else is served")?;
            ensure!(head.starts_with("HTTP/1."), "{head}");
        }
        slow.retain_mut(|stream| stream.write_all(b"a").is_ok());
        if slow.is_empty() {
            return Ok(());
        }
        sleep(Duration::from_secs(1));
    }
    anyhow::bail!("{} are still there after a minute of a byte each second", slow.len())
}
