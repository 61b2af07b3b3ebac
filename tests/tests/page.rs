//! The status page, as a real browser shows it.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Namespace, Node, Settings, command, http, lab::SERVERS, node::binary, steps::connected,
    until,
};

const PORT: u16 = 9588;

fn settings() -> Settings {
    Settings::default().with("api", "http", &format!("\"127.0.0.1:{PORT}\""))
}

/// The link that `weir page` prints.
fn link(node: &Node<'_>) -> Result<String> {
    let mut weir = Command::new(binary()?);
    let link = command::run(weir.arg("--config").arg(node.config_path()).arg("page"))?;
    Ok(link.trim().to_owned())
}

/// What the browser has made of a page after some seconds of the page's own time, and what it had
/// to complain of.
fn browse(namespace: &Namespace, url: &str) -> Result<(String, String)> {
    let profile = tempfile::tempdir()?;
    let mut chromium = namespace.command("timeout");
    chromium.args(["120", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.args(["--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom", url]);
    let output = chromium.output().context("chromium is missing: cargo xtask setup")?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{stderr}");
    let complaints = stderr.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>();
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), complaints.join("\n")))
}

/// Whether an element that is hidden, or is not there, has this identifier.
fn is_hidden(dom: &str, id: &str) -> bool {
    let tag = dom.split('<').find(|tag| tag.contains(&format!("id=\"{id}\"")));
    tag.is_none_or(|tag| tag.split('>').next().unwrap_or_default().contains("hidden"))
}

/// Bytes as the page prints them.
fn kib(bytes: u64) -> String {
    let value = bytes as f64 / 1024.0;
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} KiB")
}

#[test]
fn the_page_shows_the_sessions_and_what_they_used() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = connected(&lab, settings())?;
    node.session_add("silent")?;
    node.weir(&["session", "credit", "silent", "--gib", "5"])?;
    node.weir(&["session", "pause", "silent"])?;
    client.ping(SERVERS[0], 50)?;
    let link = link(&node)?;
    until("the page shows what was billed", Duration::from_secs(120), || {
        let (dom, complaints) = browse(&lab.node, &link)?;
        ensure!(complaints.is_empty(), "{complaints}");
        ensure!(is_hidden(&dom, "login") && !is_hidden(&dom, "node"), "{dom}");
        ensure!(is_hidden(&dom, "error") && is_hidden(&dom, "empty"), "{dom}");
        for shown in [
            "<b>1</b><span>connected, of 2 sessions</span>",
            "<b>5.00 GiB</b><span>credit left</span>",
            ">consumer</td>",
            ">silent</td>",
            ">paused</span>",
            ">serving, XDP native</span>",
            "<polyline class=\"curve\"",
        ] {
            ensure!(dom.contains(shown), "no {shown} in {dom}");
        }
        let used = node.session_show(&added.session.id)?;
        let (up, down) = (kib(used.bytes_up), kib(used.bytes_down));
        ensure!(dom.contains(&format!("{up}</b><span>billed up")), "{up}: {dom}");
        ensure!(dom.contains(&format!("{down}</b><span>billed down")), "{down}: {dom}");
        Ok(())
    })
}

#[test]
fn without_the_token_the_page_shows_nothing_of_the_node() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, settings())?;
    node.session_add("secret-name")?;
    let open = format!("http://127.0.0.1:{PORT}/");
    for (url, said) in [
        (open.clone(), "token needed"),
        (format!("{open}#token=wrong-wrong-wrong-wrong"), "That is not this node's token."),
    ] {
        let (dom, _) = browse(&lab.node, &url)?;
        ensure!(dom.contains(said) && !is_hidden(&dom, "login"), "{dom}");
        ensure!(is_hidden(&dom, "node") && !dom.contains("secret-name"), "{dom}");
    }
    let (head, _) = http::ask(&lab.node, PORT, "/v1/sessions")?;
    ensure!(head.contains(" 401 "), "{head}");
    let (head, body) = http::ask(&lab.node, PORT, "/")?;
    let head = head.to_lowercase();
    ensure!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    ensure!(head.contains("x-content-type-options: nosniff"), "{head}");
    for file in ["page.css", "page.js"] {
        ensure!(body.contains(&format!("\"{file}\"")), "{body}");
        http::get(&lab.node, PORT, &format!("/{file}"))?;
    }
    // Who uses the port without a browser is told as before.
    let (head, _) = http::ask(&lab.node, PORT, "/nothing")?;
    ensure!(head.contains(" 401 "), "{head}");
    Ok(())
}
