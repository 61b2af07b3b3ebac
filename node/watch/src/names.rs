//! Whether the exit's resolvers answer.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

use crate::{judge::Names, targets::NameCheck};

/// How long one server has for one answer. A program asks again after 5 s.
const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How often each is asked.
const ATTEMPTS: usize = 2;

/// Asks these servers for a name, by the routes of this thread's network namespace.
pub(crate) async fn check(servers: &[IpAddr], check: &NameCheck) -> Names {
    if servers.is_empty() {
        return Names::NotAsked;
    }
    let all = servers.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), all);
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = ATTEMPTS;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    let Ok(resolver) = builder.build() else { return Names::NotAsked };
    // With the dot, it is the whole name.
    let Ok(found) = resolver.lookup_ip(format!("{}.", check.name.trim_end_matches('.'))).await
    else {
        return Names::Silent;
    };
    let found: Vec<IpAddr> = found.iter().collect();
    match check.address {
        _ if found.is_empty() => Names::Silent,
        Some(address) if !found.contains(&address) => Names::Wrong,
        _ => Names::Answered,
    }
}
