//! The commands and their arguments, with their help.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use weir_config::amounts::BitRate;
use weir_control::resolver;

use super::{
    buy::BuyArgs,
    exits::{self, ExitsArgs},
    market::MarketCommand,
    registry::RegistryCommand,
    wallet::WalletArgs,
};

/// weir: a high-capacity exit node for decentralised VPNs.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct Args {
    /// The node's configuration file; default settings without it
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The node's API socket [default: $WEIR_SOCKET, else api.socket in the configuration]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  weir doctor                              check this machine for problems
  weir run                                 run the node with default settings
  weir config default > weir.toml          print every setting with an explanation
  weir session add --name a > a.conf       add a consumer; print its wg-quick file
  weir session list                        list the sessions and their traffic
  weir status                              show the node on one screen
  weir top                                 the same, live, with every session
  weir guard                               show what the guard in the kernel drops

Exit status: 0 success, 1 failure, 2 usage error.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the node until SIGTERM or SIGINT
    #[command(after_help = "Examples:\n  weir run\n  weir run --config /etc/weir/weir.toml\n\n\
        Logs go to standard error; see log.level and log.format in the configuration.")]
    Run,
    /// Add, list, show and remove consumers' sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Show the running node on one screen
    #[command(after_help = "Examples:\n  weir status\n  weir status --json | jq .boundaries")]
    Status,
    /// Watch the running node: throughput, workers, sessions, drops
    #[command(after_help = "Example:\n  weir top\n\nKeys: q quit, s sort by the next column, \
        r reverse, up and down scroll, space pause.")]
    Top,
    /// Print the URL of the node's status page, including its access token
    #[command(after_help = "Examples:\n  weir page\n  xdg-open \"$(weir page)\"\n\n\
        Set api.http in the configuration first, for example to \"127.0.0.1:9588\".")]
    Page,
    /// Show or change rate limits, quotas and the weekly schedule
    #[command(after_help = "Examples:\n  weir limits\n  \
        weir limits set node-rate-down=\"200 Mbit/s\" sessions=100\n\n\
        To set the rate of one session: weir session rate.")]
    Limits {
        #[command(subcommand)]
        command: Option<LimitsCommand>,
    },
    /// Show how consumers' packets leave, and each session's flows; never destinations
    #[command(after_help = "Examples:\n  weir flows\n  weir flows --json | jq .nat\n\n\
        To answer an abuse notice: weir flows owner.")]
    Flows {
        #[command(subcommand)]
        command: Option<FlowsCommand>,
    },
    /// Make, list and revoke vouchers, which consumers use inside the tunnel
    #[command(subcommand)]
    Voucher(VoucherCommand),
    /// Show what the node has earned, and withdraw ecash
    #[command(after_help = "Examples:\n  weir earnings\n  weir earnings --json | jq .mints\n\n\
        To move redeemed ecash to a wallet: weir earnings withdraw.")]
    Earnings {
        #[command(subcommand)]
        command: Option<EarningsCommand>,
    },
    /// Run a registry, where exits are listed and found
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Show, publish or withdraw the node's listing in the market
    #[command(subcommand)]
    Market(MarketCommand),
    /// A consumer's purse of ecash: receive, send, balance
    #[command(
        after_help = "Examples:\n  weir wallet receive --trust-mint cashuBo2F0gaJhaUgA...\n  \
        weir wallet balance\n  weir wallet send 50\n\n\
        A mint is a custodian: it holds the money that the ecash stands for. See docs/wallet.md."
    )]
    Wallet(WalletArgs),
    /// List the exits that consumers can buy, from registries; needs neither root nor a node
    #[command(after_help = exits::EXAMPLES)]
    Exits(ExitsArgs),
    /// Buy a configuration for any WireGuard app at an exit of the market
    #[command(after_help = "Examples:\n  weir buy --country DE --gib 2 --qr\n  \
        weir buy --node 3f9a41c0 --amount 50 --out exit.conf\n  \
        weir buy --listing exit.json --amount 50 --out exit.conf\n  \
        weir buy --listing exit.json --voucher CODE > exit.conf\n  weir buy --resume\n\n\
        Pays out of the wallet (see weir wallet). A purchase that was interrupted is not lost: weir buy\n\
        --resume asks the exit again with the same payment. Exits that apps cannot reach are left out.\n\
        All listings are fetched, so that no registry learns the country.")]
    Buy(BuyArgs),
    /// Check or export the ledger file; the node need not be running
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Show what the guard in the kernel passes and drops, every second until interrupted
    #[command(after_help = "Examples:\n  weir guard\n  weir guard --once\n  \
        weir guard --json | jq .verdicts")]
    Guard {
        /// Measure for one second, then exit
        #[arg(long)]
        once: bool,
    },
    /// Measure this machine's capacity as a node
    #[command(after_help = "Examples:\n  sudo weir bench\n  \
        sudo weir bench --config /etc/weir/weir.toml --json\n\n\
        Takes less than a minute. It uses its own network namespaces. If node.state_dir exists, it\n\
        stores the capacity there for the node's listing; it changes nothing else on this machine.\n\
        A running node or other load lowers the result.")]
    Bench,
    /// Check this machine for problems that affect a node, and say how to fix them
    #[command(after_help = "Examples:\n  sudo weir doctor\n  \
        weir doctor --config /etc/weir/weir.toml --json | jq .findings\n\n\
        It changes nothing. Each line is good, unknown (usually because root is needed), a\n\
        warning or bad, and says what to do. Exit status: 1 if anything is bad, else 0.")]
    Doctor,
    /// Resolve names for a node; started by the node itself
    #[command(name = resolver::COMMAND, hide = true, after_help = "Example:\n  weir run")]
    ResolveNames,
    /// Reload the running node's configuration and lists; sessions stay open
    #[command(
        after_help = "Examples:\n  weir reload\n  weir reload --json | jq .needs_restart\n\n\
        If there is a mistake, nothing changes. SIGHUP also reloads, and logs the result."
    )]
    Reload,
    /// Show, rotate or retire the node's own keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Test what consumers can reach
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print or check a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Send everything of this machine through an exit node, and nothing beside it
    Connect(super::connect::ConnectArgs),
    /// End the connection of weir connect, and open this machine again
    #[command(after_help = super::connect::DISCONNECT_EXAMPLES)]
    Disconnect,
    /// Run one program whose only way out is a tunnel
    Exec(Box<super::exec::ExecArgs>),
    /// Buy at exits like a consumer, measure them, and publish what was found
    Watch(Box<super::watch::WatchArgs>),
}

#[derive(Debug, Subcommand)]
pub(super) enum VoucherCommand {
    /// Make vouchers and print their codes, which are stored nowhere else
    #[command(
        after_help = "Examples:\n  weir voucher make --gib 10 --count 100 --csv > vouchers.csv\n  \
        weir voucher make --gib 1 --hours 24 --expires-days 90 --batch day-passes\n\n\
        Whoever has a code can use it, once. The node keeps a hash of it."
    )]
    Make {
        /// GiB that each is good for, up and down together
        #[arg(long, default_value_t = 0)]
        gib: u64,
        /// Bytes that each is good for, up and down together
        #[arg(long, default_value_t = 0)]
        bytes: u64,
        /// Hours that each is good for
        #[arg(long, default_value_t = 0)]
        hours: u64,
        /// How many
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Name of the batch, to revoke it by [default: a random one]
        #[arg(long, value_name = "NAME")]
        batch: Option<String>,
        /// Days after which they are no longer taken [default: never]
        #[arg(long, value_name = "DAYS")]
        expires_days: Option<u32>,
        /// Print CSV with a heading
        #[arg(long)]
        csv: bool,
    },
    /// List the batches and how many of each were used
    #[command(after_help = "Examples:\n  weir voucher list\n  weir voucher list --json")]
    List,
    /// Revoke a voucher, or all of a batch that were not used
    #[command(after_help = "Examples:\n  weir voucher revoke --batch day-passes\n  \
        weir voucher revoke 3f9k2-...")]
    Revoke {
        /// The code of one voucher
        #[arg(value_name = "CODE", conflicts_with = "batch", required_unless_present = "batch")]
        code: Option<String>,
        /// All of this batch that were not used
        #[arg(long, value_name = "NAME")]
        batch: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum EarningsCommand {
    /// Print redeemed ecash as a token for a wallet
    #[command(after_help = "Examples:\n  weir earnings withdraw\n  \
        weir earnings withdraw --mint https://mint.example.net > token.txt\n\n\
        Whoever has the token can spend it. The node keeps it until you confirm that it has\n\
        arrived, and prints it again: weir earnings again.")]
    Withdraw {
        /// The mint [default: the only one with something to withdraw]
        #[arg(long, value_name = "URL")]
        mint: Option<String>,
    },
    /// Print the token of a withdrawal that was not confirmed again
    #[command(after_help = "Example:\n  weir earnings again 3")]
    Again {
        /// The withdrawal's number
        withdrawal: u64,
    },
    /// Say that a withdrawal has arrived in a wallet; the node deletes the token
    #[command(after_help = "Example:\n  weir earnings confirm 3")]
    Confirm {
        /// The withdrawal's number
        withdrawal: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show the node's public key, and the old one while it is still accepted
    #[command(after_help = "Examples:\n  weir key show\n  weir key show --json")]
    Show,
    /// Switch to a new key; the old one is accepted until it is retired
    #[command(after_help = "Example:\n  weir key rotate\n\n\
        New sessions get the new key. Give existing consumers the new public key (PublicKey in\n\
        their configuration), then run: weir key retire")]
    Rotate,
    /// Stop accepting the old key
    #[command(after_help = "Example:\n  weir key retire\n\n\
        Consumers that still use the old key can then no longer connect.")]
    Retire,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say whether a flow would be allowed, and by which rule
    #[command(after_help = "Examples:\n  weir policy test 9.9.9.9:443\n  \
        weir policy test '[2620:fe::fe]:53' --udp\n  \
        weir policy test 192.0.2.1:80 --offline --config /etc/weir/weir.toml\n\n\
        The running node answers from the lists that it currently uses.")]
    Test {
        /// Destination, \"address:port\"; put an IPv6 address in brackets
        #[arg(value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// UDP instead of TCP
        #[arg(long)]
        udp: bool,
        /// Use the configuration and its lists instead of asking the running node
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Add a session and print its configuration for wg-quick
    #[command(after_help = "Examples:\n  weir session add\n  \
        weir session add --name alice > alice.conf\n  \
        weir session add --public-key \"$(wg pubkey < private.key)\"\n  \
        weir session add --psk generate\n\n\
        Without --public-key the node generates the key pair. The private key is in the printed\n\
        configuration and stored nowhere else. On a terminal, a QR code for WireGuard apps follows.")]
    Add {
        /// Name of the session; must be unique
        #[arg(long)]
        name: Option<String>,
        /// The consumer's public key in base64, as `wg pubkey` prints it
        #[arg(long, value_name = "KEY")]
        public_key: Option<String>,
        /// A pre-shared key in base64, as `wg genpsk` prints it, or `generate` for a new one
        #[arg(long, value_name = "KEY|generate", num_args = 0..=1,
            default_missing_value = "generate")]
        psk: Option<String>,
        /// Pause the session until it has credit
        #[arg(long)]
        prepaid: bool,
    },
    /// List all sessions
    #[command(after_help = "Examples:\n  weir session list\n  weir session list --json")]
    List,
    /// Show one session with exact counters
    #[command(after_help = WHICH_EXAMPLES)]
    Show {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
    },
    /// Add credit to a session
    #[command(after_help = "Examples:\n  weir session credit alice --gib 5\n  \
        weir session credit alice --bytes 1000000 --seconds 3600 --reference payment-17")]
    Credit {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
        /// GiB to add, up and down together
        #[arg(long, default_value_t = 0)]
        gib: u64,
        /// Bytes to add, up and down together
        #[arg(long, default_value_t = 0)]
        bytes: u64,
        /// Seconds to add
        #[arg(long, default_value_t = 0)]
        seconds: u64,
        /// Unique name of the payment; repeating one adds nothing
        #[arg(long)]
        reference: Option<String>,
    },
    /// Set a session's own rate limits; a direction left out uses the node's default
    #[command(after_help = "Examples:\n  weir session rate alice --up \"20 Mbit/s\" \
        --down \"100 Mbit/s\"\n  weir session rate alice --down off\n  weir session rate alice")]
    Rate {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
        /// Limit from the consumer to the internet, such as "20 Mbit/s", or "off" for none
        #[arg(long, value_name = "RATE")]
        up: Option<BitRate>,
        /// Limit from the internet to the consumer
        #[arg(long, value_name = "RATE")]
        down: Option<BitRate>,
    },
    /// Pause a session until it is resumed
    #[command(after_help = "Example:\n  weir session pause alice")]
    Pause {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
    },
    /// Resume a session that the operator paused
    #[command(after_help = "Example:\n  weir session resume alice")]
    Resume {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
    },
    /// Close a session for the payment layer; its final usage record says so
    #[command(after_help = "Example:\n  weir session close alice")]
    Close {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
    },
    /// Remove a session; its final counters stay in the ledger
    #[command(after_help = WHICH_EXAMPLES)]
    Remove {
        /// Identifier (or its first four or more digits), name, or public key
        #[arg(value_name = "SESSION")]
        which: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// Change limits until the node stops or a reload changes them
    #[command(after_help = "Examples:\n  weir limits set node-rate-up=\"50 Mbit/s\"\n  \
        weir limits set bytes-per-month=\"20 TB\" month-reset-day=15\n  \
        weir limits set schedule=\"Sat,Sun 00:00-24:00 closed; daily 08:00-18:00 down=50mbit\"\n  \
        weir limits set node-rate-up=off schedule=off")]
    Set {
        /// KEY=VALUE: a key of the section limits in the configuration, with its unit, or off
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum FlowsCommand {
    /// Say which session held an external port at a time; the node need not be running
    #[command(after_help = "Examples:\n  \
        weir flows owner 198.51.100.7:4711 2026-11-29T13:45:10Z\n  \
        weir flows owner '[2001:db8::7]:4711' 2026-11-29T14:45:10+01:00\n  \
        weir flows owner 198.51.100.7:4711 1796046310 --file copy.db\n\n\
        An abuse notice names them: the source address, its port, and when. The answer is a\n\
        session and the time for which it held the block of ports. What it reached is recorded\n\
        nowhere. Exit status: 1 if no session is known.")]
    Owner {
        /// External address and port, \"address:port\"; put an IPv6 address in brackets
        #[arg(value_name = "ADDRESS:PORT")]
        at: SocketAddr,
        /// When: RFC 3339 with its time zone, or seconds since 1970
        #[arg(value_name = "TIME")]
        time: String,
        /// The ledger file [default: the one in node.state_dir of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Check the ledger for damage and for data that the node would never write
    #[command(after_help = "Examples:\n  weir ledger check\n  weir ledger check copy.db")]
    Check {
        /// The ledger file [default: the one in node.state_dir of the configuration]
        file: Option<PathBuf>,
    },
    /// Print the usage records as NDJSON, oldest first
    #[command(after_help = "Examples:\n  weir ledger export > usage.ndjson\n  \
        weir ledger export --after 1200")]
    Export {
        /// The ledger file [default: the one in node.state_dir of the configuration]
        file: Option<PathBuf>,
        /// Only records after this cursor
        #[arg(long, value_name = "CURSOR", default_value_t = 0)]
        after: u64,
    },
    /// Print the highest promise of each channel and its preimage as NDJSON; keep it secret
    #[command(after_help = "Example:\n  weir ledger settlements > to-settle.ndjson")]
    Settlements {
        /// The ledger file [default: the one in node.state_dir of the configuration]
        file: Option<PathBuf>,
    },
}

const WHICH_EXAMPLES: &str = "Examples (show or remove):\n  weir session show alice\n  \
    weir session show 5f0c\n  weir session remove 5f0c1d2e3a4b5c6d";

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the default configuration with every setting explained
    #[command(after_help = "Example:\n  weir config default > /etc/weir/weir.toml")]
    Default,
    /// Report every mistake in a configuration file with its line and its fix
    #[command(after_help = "Example:\n  weir config check /etc/weir/weir.toml")]
    Check {
        /// The file to check
        file: PathBuf,
    },
}
