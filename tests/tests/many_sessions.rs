//! Thousands of sessions share one port, one interface and the same threads.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, process};

const SESSIONS: usize = 2000;
const AT_ONCE: usize = 4;

/// What must not grow with the sessions.
fn shape(lab: &Lab, node: &Node<'_>) -> Result<[usize; 3]> {
    Ok([
        lab.node.ip("-o link")?.lines().count(),
        lab.node.run("ss -Hlun")?.lines().count(),
        node.nft_table()?.lines().count(),
    ])
}

#[test]
fn two_thousand_sessions_need_no_more_ports_interfaces_rules_or_threads() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let first = node.session_add("first")?;
    let before = shape(&lab, &node)?;
    let threads = process::threads(node.pid()?)?;
    thread::scope(|scope| -> Result<()> {
        let add = |part: usize| {
            let node = &node;
            move || {
                (part..SESSIONS).step_by(AT_ONCE).try_for_each(|number| {
                    node.session_add(&format!("consumer-{number}")).map(|_| ())
                })
            }
        };
        let parts: Vec<_> = (0..AT_ONCE).map(|part| scope.spawn(add(part))).collect();
        parts.into_iter().try_for_each(|part| part.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    let last = node.session_add("last")?;
    let after = shape(&lab, &node)?;
    ensure!(before == after, "interfaces, ports, rules: {before:?} became {after:?}");
    // The API's helpers come with its requests at once, not with the sessions, and go again.
    let more = process::threads(node.pid()?)?.saturating_sub(threads);
    ensure!(more <= 4 * AT_ONCE, "{threads} threads became {more} more");
    ensure!(node.status()?.sessions == SESSIONS + 2, "{:?}", node.status()?);
    for added in [first, last] {
        let client = Client::connect(&lab.consumer, &added.config)?;
        client.wait_connected(SERVERS[0])?;
    }
    Ok(())
}
