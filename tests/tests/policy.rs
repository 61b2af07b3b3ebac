//! What a consumer must not reach, it does not reach, and each attempt is counted.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use weir_tests::{
    Client, Lab, Namespace, Node, Settings,
    lab::{HOST_V4, HOST_V6, METADATA_V4, SERVERS},
    node::Added,
    steps::connected,
    traffic::tcp,
    until,
    wgquick::WgQuick,
};

fn refuses(node: &Node<'_>, client: &Client<'_>, to: IpAddr, counter: &str) -> Result<()> {
    let before = node.refused(counter)?;
    ensure!(client.ping(to, 3).is_err(), "{to} answered");
    let after = node.refused(counter)?;
    ensure!(after >= before + 3, "{to}: {counter} went from {before} to {after}");
    Ok(())
}

fn connects(from: &Namespace, to: SocketAddr) -> bool {
    let connect = || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(3))?);
    from.enter(connect).is_ok()
}

#[test]
fn a_source_that_is_not_the_sessions_is_dropped_and_counted() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    let interface = client.interface();
    for (number, (spoofed, server)) in
        ["10.66.0.99", "fd66:7765:6972::99"].into_iter().zip(SERVERS).enumerate()
    {
        let (length, nodad) = if number == 0 { (32, "") } else { (128, "nodad") };
        lab.consumer.ip(&format!("addr add {spoofed}/{length} dev {interface} {nodad}"))?;
        let before = node.drops("up", "source_address")?;
        let ping = lab.consumer.run(&format!("ping -n -I {spoofed} -c 3 -i 0.02 -W 1 {server}"));
        ensure!(ping.is_err(), "{server} answered {spoofed}");
        until("the drops are counted", Duration::from_secs(5), || {
            let after = node.drops("up", "source_address")?;
            ensure!(after >= before + 3, "{before} to {after}");
            Ok(())
        })?;
        client.ping(server, 1)?;
    }
    Ok(())
}

#[test]
fn the_metadata_service_is_out_of_reach() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    refuses(&node, &client, METADATA_V4.into(), "metadata_destination")?;
    refuses(&node, &client, "fd00:ec2::254".parse()?, "private_destination")
}

#[test]
fn another_consumer_is_out_of_reach() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    let Added { session, config, .. } = node.session_add("other")?;
    let mut config = WgQuick::parse(&config)?;
    // It has no route of its own, and still shakes hands.
    config.wg.push_str("PersistentKeepalive = 1\n");
    let other = Client::start(&lab.internet, &config)?;
    until("the other one is connected", Duration::from_secs(20), || {
        ensure!(other.last_handshake()? > 0, "no handshake yet");
        Ok(())
    })?;
    refuses(&node, &client, session.address_v4.into(), "consumer_to_consumer")?;
    refuses(&node, &client, session.address_v6.into(), "consumer_to_consumer")
}

#[test]
fn the_host_is_out_of_reach() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    let service = tcp::Server::start(&lab.node)?;
    for address in [IpAddr::from(HOST_V4), HOST_V6.into()] {
        refuses(&node, &client, address, "host_destination")?;
    }
    // The gateway answers pings, and nothing else.
    for address in [IpAddr::from(HOST_V4), HOST_V6.into(), "10.66.0.1".parse()?] {
        let before = node.refused("host_destination")?;
        ensure!(!connects(&lab.consumer, service.at(address)), "{address} took a connection");
        ensure!(node.refused("host_destination")? > before, "{address} was not counted");
    }
    Ok(())
}

#[test]
fn mail_between_servers_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, _client) = connected(&lab, Settings::default())?;
    let mail = tcp::Server::start_on(&lab.internet, 25)?;
    let submission = tcp::Server::start_on(&lab.internet, 587)?;
    for address in SERVERS {
        let before = node.refused("smtp")?;
        ensure!(!connects(&lab.consumer, mail.at(address)), "port 25 of {address} answered");
        ensure!(node.refused("smtp")? > before, "{address} was not counted");
        ensure!(connects(&lab.consumer, submission.at(address)), "{address} is out of reach");
    }
    Ok(())
}
