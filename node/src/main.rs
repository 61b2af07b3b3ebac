//! The `weir` command.

use std::{path::Path, process::ExitCode};

use weir::{
    cli::{self, Edges, PagePlace},
    logging::Log,
    node,
};
use weir_config::{self as config, Config};
use weir_host::uplink::{self, Uplink};
use weir_policy::{self as policy, Lists, Question, Surroundings, Verdict};

fn main() -> ExitCode {
    cli::main(&Edges {
        run: |file| {
            let config = Config::load(file)?;
            node::run(&config, file, Log::start(&config.log)?)
        },
        default_config: config::default_text,
        check_config,
        judge,
        socket: |file| Ok(Config::load(file)?.api.socket),
        page: |file| {
            let api = Config::load(file)?.api;
            let address = match api.http {
                config::Metrics::On(address) => Some(address),
                config::Metrics::Off => None,
            };
            Ok(PagePlace { address, token_file: api.token_file })
        },
        ledger: |file| Ok(node::ledger_path(&Config::load(file)?)),
    })
}

/// Checks against the uplink too, if this machine has the one that the configuration means; then
/// the lists.
fn check_config(file: &Path, text: &str) -> Vec<String> {
    let uplink_mtu = config::check(text, None)
        .ok()
        .and_then(|config| Uplink::find(&config.node.uplink).ok())
        .map(|uplink| uplink.mtu);
    match config::check(text, uplink_mtu) {
        Ok(config) => match Lists::read(&config.policy) {
            Ok(_) => Vec::new(),
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        },
        Err(mistakes) => {
            let line = |mistake: &config::Mistake| format!("{}:{mistake}", file.display());
            mistakes.iter().map(line).collect()
        }
    }
}

fn judge(file: Option<&Path>, question: &Question) -> anyhow::Result<Verdict> {
    let config = Config::load(file)?;
    let lists = Lists::read(&config.policy)?;
    let around = Surroundings::new(&config, uplink::own_addresses()?);
    Ok(policy::judge(question, &lists, &around))
}
