//! Nutshell: a Cashu mint with a fake wallet behind it, and a wallet, of other people's making.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{Namespace, command, until};

/// What the mint keeps of each proof, in thousandths.
pub const FEE_PPK: u64 = 100;
const PORT: u16 = 3338;

/// A mint, and a wallet with its ecash; gone when dropped.
#[derive(Debug)]
pub struct Nutshell<'a> {
    namespace: &'a Namespace,
    address: IpAddr,
    directory: TempDir,
    child: Option<Child>,
}

impl<'a> Nutshell<'a> {
    /// Starts the mint, and waits until it answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(namespace: &'a Namespace, address: IpAddr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut nutshell = Self { namespace, address, directory, child: None };
        nutshell.plug()?;
        Ok(nutshell)
    }

    /// The mint's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.address, PORT))
    }

    /// Starts the mint again, with what it has signed before.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn plug(&mut self) -> Result<()> {
        let log = fs::File::create(self.directory.path().join("mint.log"))?;
        let mut mint = self.program("mint")?;
        mint.env("MINT_PRIVATE_KEY", "a mint of the tests")
            .env("MINT_BACKEND_BOLT11_SAT", "FakeWallet")
            .env("MINT_LISTEN_HOST", self.address.to_string())
            .env("MINT_LISTEN_PORT", PORT.to_string())
            .env("MINT_DATABASE", self.directory.path().join("mint"))
            .env("MINT_INPUT_FEE_PPK", FEE_PPK.to_string())
            .env("MINT_RATE_LIMIT", "FALSE")
            .env("FAKEWALLET_DELAY_INCOMING_PAYMENT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(mint.spawn().context("nutshell is missing: cargo xtask setup")?);
        let address = SocketAddr::new(self.address, PORT);
        until("the mint answers", Duration::from_secs(60), || {
            self.namespace.enter(|| Ok(TcpStream::connect(address).map(drop)?))
        })
    }

    /// Kills the mint. What it has signed is on its disk.
    ///
    /// # Errors
    /// If it does not end.
    pub fn unplug(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Has the wallet get ecash from the mint.
    ///
    /// # Errors
    /// If it does not.
    pub fn mint(&self, amount: u64) -> Result<()> {
        let amount = amount.to_string();
        // Without waiting: the wallet may subscribe after the fake invoice was paid, and hears nothing then.
        let said = self.wallet(&["invoice", "--no-check", &amount])?;
        let id = said.split("--id ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let id = id.with_context(|| format!("no invoice in {said:?}"))?;
        until("the mint gives ecash", Duration::from_secs(60), || {
            self.wallet(&["invoice", &amount, "--id", id]).map(drop)
        })
    }

    /// A token of the wallet, with these options.
    ///
    /// # Errors
    /// If the wallet does not make one.
    pub fn send(&self, amount: u64, options: &[&str]) -> Result<String> {
        let month = Duration::from_hours(30 * 24);
        self.send_locked_for(month, amount, options)
    }

    /// The same, where anybody can spend what is locked after this time.
    ///
    /// # Errors
    /// If the wallet does not make one.
    pub fn send_locked_for(&self, time: Duration, amount: u64, options: &[&str]) -> Result<String> {
        let amount = amount.to_string();
        let mut wallet = self.program("cashu")?;
        wallet.env("LOCKTIME_DELTA_SECONDS", time.as_secs().to_string());
        wallet.env("MINT_URL", self.url()).args(["-y", "send", &amount]).args(options);
        let said = command::run(&mut wallet)?;
        let token = said.split_whitespace().find(|word| word.starts_with("cashu"));
        Ok(token.with_context(|| format!("no token in {said:?}"))?.to_owned())
    }

    /// Has the wallet take a token, and says what it has then.
    ///
    /// # Errors
    /// If it does not.
    pub fn receive(&self, token: &str) -> Result<u64> {
        self.wallet(&["receive", token])?;
        self.balance()
    }

    /// What the wallet has.
    ///
    /// # Errors
    /// If the wallet does not say.
    pub fn balance(&self) -> Result<u64> {
        let said = self.wallet(&["balance"])?;
        let line = said.lines().find_map(|line| line.trim().strip_prefix("Balance: "));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no balance in {said:?}"))
    }

    /// What the mint has signed and nobody has spent, by its own books.
    ///
    /// # Errors
    /// If its database cannot be read.
    pub fn outstanding(&self) -> Result<u64> {
        const QUERY: &str = "import glob, sqlite3, sys
file = glob.glob(sys.argv[1] + '/**/mint.sqlite3', recursive=True)[0]
one = lambda sql: sqlite3.connect(file).execute(sql).fetchone()[0] or 0
print(one('SELECT SUM(amount) FROM promises WHERE c_ IS NOT NULL')
      - one('SELECT SUM(amount) FROM proofs_used'))";
        let mut python = self.program("python3")?;
        let said = command::run(python.args(["-c", QUERY]).arg(self.directory.path()))?;
        Ok(said.trim().parse()?)
    }

    fn wallet(&self, arguments: &[&str]) -> Result<String> {
        let mut wallet = self.program("cashu")?;
        wallet.env("MINT_URL", self.url()).arg("-y").args(arguments);
        command::run(&mut wallet)
    }

    fn program(&self, name: &str) -> Result<Command> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let program = target.join("tools/nutshell/bin").join(name);
        ensure!(program.exists(), "{} is missing: cargo xtask setup", program.display());
        let mut command = self.namespace.command(program.to_str().context("a path")?);
        command.env("CASHU_DIR", self.directory.path().join("wallet")).env("TOR", "FALSE");
        command.current_dir(self.directory.path());
        Ok(command)
    }
}

impl Drop for Nutshell<'_> {
    fn drop(&mut self) {
        self.unplug().ok();
    }
}
