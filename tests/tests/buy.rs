//! `weir buy` at a node that sells, paid with ecash of a foreign mint.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_testkit::kill::Moments;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{MARKET_V4, NODE_V4, SERVERS},
    nutshell::Nutshell,
    payer::GATEWAY_V4,
    until,
    wallet::Wallet,
};

const PORT: u16 = 8443;
/// How often a purchase is killed.
const KILLS: u64 = 30;
/// What each of these costs.
const PRICE: u64 = 8;

fn settings(folder: &TempDir, mint: &str) -> Settings {
    let path = |name: &str| format!("\"{}\"", folder.path().join(name).display());
    Settings::default()
        .with("cashu", "key_file", &path("cashu.key"))
        .with("cashu", "mints", &format!("[\"{mint}\"]"))
        .with("cashu", "gib_price", "1024")
        .with("cashu", "redeem_seconds", "1")
        .with("voucher", "enabled", "true")
        .with("purchase", "listen", &format!("\"{NODE_V4}:{PORT}\""))
        .with("purchase", "server_names", "[\"exit.example.net\"]")
        .with("purchase", "min_mib", "4")
        .with("market", "enabled", "true")
        .with("market", "key_file", &path("market.key"))
        .with("market", "country", "\"DE\"")
        .with("market", "purchase_url", &format!("\"http://{NODE_V4}:{PORT}/purchase\""))
        // Nobody listens there: the listing goes by hand.
        .with("market", "registries", &format!("[\"ws://{NODE_V4}:9\"]"))
}

/// The node's signed listing, in a file.
fn listing(node: &Node<'_>, folder: &TempDir) -> Result<PathBuf> {
    let path = folder.path().join("listing.json");
    until("the node has a listing", Duration::from_secs(30), || {
        let shown: Value = serde_json::from_str(&node.weir(&["market", "show", "--json"])?)?;
        let event = &shown["event"];
        ensure!(event.to_string().contains("/purchase"), "{shown}");
        Ok(fs::write(&path, event.to_string())?)
    })?;
    Ok(path)
}

/// The node's books: what it has received and redeemed.
fn earnings(node: &Node<'_>) -> Result<[u64; 3]> {
    let all: Value = serde_json::from_str(&node.weir(&["earnings", "--json"])?)?;
    let of = |word: &str| all["mints"][0][word].as_u64().with_context(|| format!("{all}"));
    Ok([of("received")?, of("redeemed")?, of("unredeemed")?])
}

fn sessions(node: &Node<'_>) -> Result<u64> {
    let all: Value = serde_json::from_str(&node.weir(&["session", "list", "--json"])?)?;
    let all = all["sessions"].as_array().or(all.as_array()).context("a list")?.len();
    Ok(u64::try_from(all)?)
}

#[test]
fn what_is_bought_connects_and_a_purchase_that_is_killed_at_any_moment_is_paid_once() -> Result<()>
{
    let lab = Lab::new()?;
    let mint = Nutshell::start(&lab.internet, MARKET_V4.into())?;
    mint.mint(1000)?;
    let folder = tempfile::tempdir()?;
    let node = Node::start(&lab.node, settings(&folder, &mint.url()))?;
    let listing = listing(&node, &folder)?;
    let listing = listing.to_str().context("a path")?;
    let wallet = Wallet::new(&lab.internet)?;
    let none = wallet.buy(&["--listing", listing]).expect_err("the wallet is empty");
    ensure!(format!("{none:#}").contains(&mint.url()), "{none:#}");
    wallet.run(&["receive", "--trust-mint", &mint.send(900, &[])?])?;

    let mut bought = None;
    until("the node sells", Duration::from_secs(30), || {
        bought = Some(wallet.buy(&["--listing", listing, "--amount", "64"])?);
        Ok(())
    })?;
    let bought = bought.context("a purchase")?;
    let config = bought["config"].as_str().context("a configuration")?;
    let client = Client::connect(&lab.consumer, config)?;
    client.wait_connected(GATEWAY_V4.parse()?)?;
    client.ping(SERVERS[0], 1)?;
    ensure!(bought["spent"] == 64 && bought["bytes"].as_u64() > Some(60 << 20), "{bought}");
    let code = node.weir(&["voucher", "make", "--gib", "1"])?;
    let open = wallet.buy(&["--listing", listing, "--voucher", code.trim()]).expect_err("no TLS");
    ensure!(format!("{open:#}").contains("without TLS"), "{open:#}");

    let price = PRICE.to_string();
    let (mut killed, mut moments) = (0, Moments::within(Duration::from_millis(80)));
    for _ in 0..KILLS {
        let mut command = wallet.buy_command()?;
        command.args(["--listing", listing, "--amount", &price, "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        killed += u64::from(moments.kill(&mut child)?.code().is_none());
    }
    ensure!(killed > KILLS / 2, "only {killed} were killed before they were done");
    let out = folder.path().join("phone.conf");
    until("every purchase is answered", Duration::from_secs(60), || {
        let resumed = wallet.buy_command()?.arg("--resume").output()?;
        if !resumed.status.success() {
            // The exit limits how often one network may connect.
            std::thread::sleep(Duration::from_secs(1));
            bail!("{}", String::from_utf8_lossy(&resumed.stderr));
        }
        let open = wallet.buy(&["--open"])?;
        ensure!(open["purchases"].as_array().is_some_and(Vec::is_empty), "{open}");
        Ok(())
    })?;
    until("the node has redeemed all", Duration::from_secs(60), || {
        let [_, _, unredeemed] = earnings(&node)?;
        ensure!(unredeemed == 0, "{unredeemed}");
        Ok(())
    })?;
    wallet.run(&["recover"])?;
    wallet.run(&["sent"])?;
    let ([received, redeemed, _], sold) = (earnings(&node)?, sessions(&node)?);
    ensure!(sold > 1 && received == 64 + (sold - 1) * PRICE, "{received} for {sold} sessions");
    let [balance, unfinished, unclaimed] = wallet.sums()?;
    let books = [balance, unfinished, unclaimed, redeemed, mint.balance()?];
    ensure!(books.iter().sum::<u64>() == mint.outstanding()?, "{books:?}: {}", mint.outstanding()?);
    ensure!(unfinished == 0 && unclaimed == 0, "{books:?}");

    // For a phone.
    let path = out.to_str().context("a path")?;
    let qr =
        wallet.buy_command()?.args(["--listing", listing, "--amount", "8", "--qr"]).output()?;
    ensure!(String::from_utf8_lossy(&qr.stdout).contains('█'), "{qr:?}");
    wallet.buy(&["--listing", listing, "--amount", "8", "--out", path])?;
    ensure!(fs::read_to_string(&out)?.contains("PrivateKey = "));
    let again = wallet.buy(&["--listing", listing, "--amount", "8", "--out", path]);
    ensure!(again.is_err(), "the file is there");
    Ok(())
}
