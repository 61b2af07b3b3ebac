//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

mod args;
mod bench;
mod buy;
mod check;
mod connect;
mod consumer;
mod doctor;
mod earnings;
mod exec;
mod exits;
mod flows;
mod fold;
mod guard;
mod history;
mod key;
mod ledger;
mod limits;
mod market;
mod out;
mod page;
mod policy;
mod qr;
mod registry;
mod reload;
mod session;
mod status;
mod top;
mod units;
mod voucher;
mod wallet;
mod watch;

use args::{
    Args, Command, ConfigCommand, EarningsCommand, FlowsCommand, KeyCommand, LedgerCommand,
    LimitsCommand, PolicyCommand, SessionCommand, VoucherCommand,
};
use out::Out;
use weir_control::{api::view::SessionRequest, client::Client};

use crate::{core_dump, logging::Log};
use weir_config::{self as config, Config, amounts::BitRate};
use weir_control::{
    api::view::{CreditRequest, RateRequest, RevokeRequest},
    resolver,
};
use weir_ledger::SessionId;

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The commands that need no node, of which the package `weir-connect` has the manual pages and the
/// completions.
const CONSUMER: [&str; 7] = ["buy", "connect", "disconnect", "exec", "exits", "wallet", "watch"];

/// The definition of the consumer's commands alone.
#[must_use]
pub fn consumer_command() -> clap::Command {
    let all = command();
    let about = "Go out through an exit node of a decentralised VPN";
    let kept = all.get_subcommands().filter(|command| CONSUMER.contains(&command.get_name()));
    let kept: Vec<_> = kept.cloned().collect();
    let json = all.get_arguments().filter(|argument| argument.get_id() == "json").cloned();
    clap::Command::new("weir")
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .args(json.collect::<Vec<_>>())
        .subcommands(kept)
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
    let done = execute(args, socket_variable, out, err).and_then(|code| {
        out.flush().context("cannot write the output")?;
        Ok(code)
    });
    match done {
        Ok(code) => code,
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
) -> anyhow::Result<ExitCode> {
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
        Command::Session(SessionCommand::Add { name, public_key, psk, prepaid }) => {
            let request = SessionRequest { name, public_key, preshared_key: psk, prepaid };
            session::add(&client()?, &request, args.json, out, err)?;
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
        Command::Voucher(VoucherCommand::Make {
            gib,
            bytes,
            hours,
            count,
            batch,
            expires_days,
            csv,
        }) => {
            let bytes = gib.saturating_mul(1 << 30).saturating_add(bytes);
            let seconds = hours.saturating_mul(3600);
            let make = voucher::Make { count, bytes, seconds, batch, expires_days, csv };
            voucher::make(&client()?, make, args.json, out)?;
        }
        Command::Voucher(VoucherCommand::List) => voucher::list(&client()?, args.json, out)?,
        Command::Voucher(VoucherCommand::Revoke { code, batch }) => {
            let request = RevokeRequest { batch, code };
            voucher::revoke(&client()?, &request, args.json, out)?;
        }
        Command::Earnings { command: None } => earnings::show(&client()?, args.json, out)?,
        Command::Earnings { command: Some(EarningsCommand::Withdraw { mint }) } => {
            earnings::withdraw(&client()?, mint, args.json, out, err)?;
        }
        Command::Earnings { command: Some(EarningsCommand::Again { withdrawal }) } => {
            earnings::again(&client()?, withdrawal, args.json, out)?;
        }
        Command::Earnings { command: Some(EarningsCommand::Confirm { withdrawal }) } => {
            earnings::confirm(&client()?, withdrawal, args.json, out)?;
        }
        Command::Buy(arguments) => buy::run(arguments, args.json, out, err)?,
        Command::Wallet(arguments) => wallet::run(arguments, args.json, out, err)?,
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
        Command::Registry(command) => registry::run(Config::load(file)?, command)?,
        Command::Reload => reload::run(&client()?, args.json, out)?,
        Command::Bench => bench::run(file, args.json, out, err)?,
        Command::Exits(wanted) => exits::run(&wanted, args.json, out, err)?,
        Command::Market(command) => market::run(&client()?, command, args.json, out)?,
        Command::Page => page::show(&Config::load(file)?.api, args.json, out)?,
        Command::Top => top::run(client()?, args.json, out)?,
        Command::Status => status::show(&client()?, args.json, out)?,
        Command::Guard { once } => guard::show(&client()?, once, args.json, out)?,
        Command::Connect(args_of) => connect::run(args_of, args.json, out, err)?,
        Command::Disconnect => connect::disconnect(args.json, out)?,
        Command::Exec(args_of) => return exec::run(*args_of, err),
        Command::Watch(args_of) => watch::run(*args_of, args.json, out, err)?,
        Command::Config(ConfigCommand::Default) => out.text(&config::default_text())?,
        Command::Config(ConfigCommand::Check { file }) => check::run(&file, out, err)?,
    }
    Ok(ExitCode::SUCCESS)
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
