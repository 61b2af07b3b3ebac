//! The command line.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

mod bench;
mod check;
mod doctor;
mod flows;
mod fold;
mod guard;
mod key;
mod ledger;
mod limits;
mod out;
mod page;
mod policy;
mod qr;
mod reload;
mod session;
mod status;
mod top;
mod units;

use out::Out;
use weir_control::client::Client;

use crate::{core_dump, logging::Log};
use weir_config::{self as config, Config, amounts::BitRate};
use weir_control::{
    api::view::{CreditRequest, RateRequest},
    resolver,
};
use weir_ledger::SessionId;

/// weir: a high-capacity exit node for decentralised VPNs.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Args {
    /// The node's configuration file; default settings without it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's API socket [default: $WEIR_SOCKET, else api.socket in the configuration]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
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
enum Command {
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
    #[command(after_help = "Examples:\n  sudo weir bench\n  sudo weir bench --json\n\n\
        Takes less than a minute. It uses its own network namespaces and changes nothing on this\n\
        machine. A running node or other load lowers the result.")]
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
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
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
enum PolicyCommand {
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
enum SessionCommand {
    /// Add a session and print its configuration for wg-quick
    #[command(after_help = "Examples:\n  weir session add\n  \
        weir session add --name alice > alice.conf\n  \
        weir session add --public-key \"$(wg pubkey < private.key)\"\n\n\
        Without --public-key the node generates the key pair. The private key is in the printed\n\
        configuration and stored nowhere else. On a terminal, a QR code for WireGuard apps follows.")]
    Add {
        /// Name of the session; must be unique
        #[arg(long)]
        name: Option<String>,
        /// The consumer's public key in base64, as `wg pubkey` prints it
        #[arg(long, value_name = "KEY")]
        public_key: Option<String>,
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
enum LimitsCommand {
    /// Change limits until the node stops or a reload changes them
    #[command(after_help = "Examples:\n  weir limits set node-rate-up=\"50 Mbit/s\"\n  \
        weir limits set bytes-per-month=\"20 TB\" month-reset-day=15\n  \
        weir limits set schedule=\"Sat,Sun 00:00-24:00 closed; daily 08:00-18:00 down=50mbit\"\n  \
        weir limits set node-rate-up=off schedule=off")]
    Set {
        /// KEY=VALUE: a key of [limits] in the configuration with its unit, or off
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum FlowsCommand {
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
enum LedgerCommand {
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
enum ConfigCommand {
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

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The whole command: reads the arguments, does what they say, and tells the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let (mut out, mut err) = (Out::stdout(), Out::stderr());
    // Whatever the command is: some have keys in their memory.
    if let Err(error) = core_dump::forbid() {
        drop(err.text(&format!("weir: {error:#}\n")));
        return ExitCode::FAILURE;
    }
    run(std::env::args_os(), std::env::var_os("WEIR_SOCKET"), &mut out, &mut err)
}

fn run(
    args: impl IntoIterator<Item = OsString>,
    socket_variable: Option<OsString>,
    out: &mut Out,
    err: &mut Out,
) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let to = if error.use_stderr() { err } else { out };
            let text = error.render();
            let text = if to.is_terminal() { text.ansi().to_string() } else { text.to_string() };
            return match to.text(&text) {
                Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let done = execute(args, socket_variable, out, err).and_then(|()| {
        out.flush().context("cannot write the output")?;
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as `head` does.
        Err(error) if out::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone as well there is nobody left to tell.
            drop(err.text(&format!("weir: {error:#}\n")));
            ExitCode::FAILURE
        }
    }
}

fn execute(
    args: Args,
    socket_variable: Option<OsString>,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let file = args.config.as_deref();
    let client = || {
        let named = args.socket.clone().or(socket_variable.map(PathBuf::from));
        let path = match named {
            Some(path) => path,
            None => Config::load(file)?.api.socket,
        };
        Client::new(path)
    };
    match args.command {
        Command::Run => {
            let config = Config::load(file)?;
            crate::run(&config, file, &Log::start(&config.log)?)?;
        }
        Command::Session(SessionCommand::Add { name, public_key, prepaid }) => {
            session::add(&client()?, name, public_key, prepaid, args.json, out, err)?;
        }
        Command::Session(SessionCommand::List) => session::list(&client()?, args.json, out)?,
        Command::Session(SessionCommand::Show { which }) => {
            session::show(&client()?, &which, args.json, out)?;
        }
        Command::Session(SessionCommand::Remove { which }) => {
            session::remove(&client()?, &which, args.json, out)?;
        }
        Command::Session(SessionCommand::Credit { which, gib, bytes, seconds, reference }) => {
            let bytes = gib.saturating_mul(1 << 30).saturating_add(bytes);
            let reference = reference.unwrap_or_else(|| SessionId::random().to_string());
            let request = CreditRequest { reference, bytes, seconds };
            session::credit(&client()?, &which, &request, args.json, out)?;
        }
        Command::Session(SessionCommand::Rate { which, up, down }) => {
            let request = RateRequest { up: up.map(BitRate::bits), down: down.map(BitRate::bits) };
            session::rate(&client()?, &which, &request, args.json, out)?;
        }
        Command::Limits { command: None } => limits::show(&client()?, args.json, out)?,
        Command::Limits { command: Some(LimitsCommand::Set { assignments }) } => {
            limits::set(&client()?, &assignments, args.json, out)?;
        }
        Command::Session(SessionCommand::Pause { which }) => {
            session::tell(&client()?, &which, "pause", args.json, out)?;
        }
        Command::Session(SessionCommand::Resume { which }) => {
            session::tell(&client()?, &which, "resume", args.json, out)?;
        }
        Command::Session(SessionCommand::Close { which }) => {
            session::tell(&client()?, &which, "close", args.json, out)?;
        }
        Command::Flows { command: None } => flows::show(&client()?, args.json, out)?,
        Command::Flows { command: Some(FlowsCommand::Owner { at, time, file: path }) } => {
            let path = ledger_file(path, file)?;
            flows::owner(&path, at, &time, args.json, out)?;
        }
        Command::Ledger(LedgerCommand::Check { file: path }) => {
            let path = ledger_file(path, file)?;
            ledger::check(&path, args.json, out, err)?;
        }
        Command::Ledger(LedgerCommand::Export { file: path, after }) => {
            let path = ledger_file(path, file)?;
            ledger::export(&path, after, out)?;
        }
        Command::Ledger(LedgerCommand::Settlements { file: path }) => {
            let path = ledger_file(path, file)?;
            ledger::settlements(&path, out)?;
        }
        Command::Doctor => doctor::run(file, args.json, out)?,
        Command::ResolveNames => resolver::serve(crate::sandbox::enter_resolver)?,
        Command::Key(KeyCommand::Show) => key::show(&client()?, args.json, out)?,
        Command::Key(KeyCommand::Rotate) => key::change(&client()?, "rotate", args.json, out)?,
        Command::Key(KeyCommand::Retire) => key::change(&client()?, "retire", args.json, out)?,
        Command::Policy(PolicyCommand::Test { to, udp, offline }) => {
            let flow = policy::flow(to, udp);
            let verdict = match offline {
                true => policy::look_up(file, &flow)?,
                false => policy::ask(&client()?, &flow)?,
            };
            policy::show(&flow, &verdict, args.json, out)?;
        }
        Command::Reload => reload::run(&client()?, args.json, out)?,
        Command::Bench => bench::run(args.json, out, err)?,
        Command::Page => page::show(&Config::load(file)?.api, args.json, out)?,
        Command::Top => top::run(client()?, args.json, out)?,
        Command::Status => status::show(&client()?, args.json, out)?,
        Command::Guard { once } => guard::show(&client()?, once, args.json, out)?,
        Command::Config(ConfigCommand::Default) => out.text(&config::default_text())?,
        Command::Config(ConfigCommand::Check { file }) => check::run(&file, out, err)?,
    }
    Ok(())
}

/// The ledger that is named, or that of the configuration.
fn ledger_file(named: Option<PathBuf>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(path) => Ok(path),
        None => Ok(crate::ledger_path(&Config::load(config)?)),
    }
}

#[cfg(test)]
mod tests;
