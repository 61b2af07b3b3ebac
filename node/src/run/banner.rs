//! What the operator reads when the node begins to serve.

#![expect(clippy::print_stderr, reason = "the banner is for the operator's terminal")]

use std::fmt::Write as _;

use tracing::info;

use weir_config::{Config, LogFormat};
use weir_control::view::Status;
use weir_wireguard::aead;

/// Shows the banner; to programs the same in one object.
pub(super) fn show(config: &Config, status: &Status) {
    match config.log.format {
        LogFormat::Text => eprint!("{}", text(config, status)),
        LogFormat::Json => info!(
            version = status.version,
            endpoint = status.endpoint,
            public_key = %status.public_key,
            uplink = status.uplink,
            xdp = status.xdp_mode,
            egress = status.egress.mode,
            io = status.io,
            cipher = cipher(),
            sandbox = status.sandbox,
            "serves consumers"
        ),
    }
}

/// The path of the cipher, or why the one that was asked for cannot be had.
fn cipher() -> String {
    aead::Path::from_environment().map_or_else(|error| error.to_string(), |path| path.name().into())
}

fn text(config: &Config, status: &Status) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a string does not fail.
        writeln!(text, "  {label:<12} {value}").ok();
    };
    line("weir", &format!("{} serves consumers", status.version));
    line("endpoint", &status.endpoint);
    line("public key", &status.public_key);
    line("uplink", &format!("{}, MTU {}", status.uplink, status.uplink_mtu));
    line(
        "tunnel",
        &format!(
            "{}, MTU {}, {}, {}",
            status.interface, status.mtu, config.tunnel.pool_v4, config.tunnel.pool_v6
        ),
    );
    line("XDP guard", &status.xdp_mode);
    line("egress", &format!("{}: {}", status.egress.mode, status.egress.reason));
    let cores: Vec<String> = status.worker_cores.iter().map(ToString::to_string).collect();
    let io = if status.io == "uring" { "io_uring" } else { "plain system calls" };
    line("workers", &format!("{} on cores {}, {io}", cores.len(), cores.join(", ")));
    line("cipher", &cipher());
    for note in &status.offloads {
        line("", note);
    }
    line("sandbox", &status.sandbox);
    line("sessions", &format!("{} of {}", status.sessions, status.max_sessions));
    line("API", &config.api.socket.display().to_string());
    if let weir_config::ListenAddr::On(address) = config.api.metrics {
        line("metrics", &format!("http://{address}/metrics"));
    }
    text
}
