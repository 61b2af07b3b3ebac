//! The `weir` command.

use std::process::ExitCode;

use weir::{
    cli::{self, Edges, PagePlace},
    config::{self, Config},
    host::uplink::Uplink,
    node,
};

fn main() -> ExitCode {
    cli::main(&Edges {
        run: |file| node::run(&Config::load(file)?, file),
        default_config: config::default_text,
        check_config,
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

/// Checks against the uplink too, if this machine has the one that the configuration means.
fn check_config(text: &str) -> Vec<String> {
    let uplink_mtu = config::check(text, None)
        .ok()
        .and_then(|config| Uplink::find(&config.node.uplink).ok())
        .map(|uplink| uplink.mtu);
    match config::check(text, uplink_mtu) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}
