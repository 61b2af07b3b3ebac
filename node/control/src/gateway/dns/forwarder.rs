//! Answers a DNS message: from the cache, or from the servers upstream.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Edns, Message, MessageType, OpCode, ResponseCode},
        rr::{
            DNSClass, RData, Record, RecordType,
            rdata::svcb::{SVCB, SvcParamValue},
        },
    },
};
use ipnet::IpNet;

use super::names;

/// The largest answer in a datagram, in bytes: it fits every tunnel in one packet.
const MAX_DATAGRAM: u16 = 1232;
/// How long a server upstream has. A consumer asks again after 5 s.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is kept at most, and how long it is kept that there is none.
const LONGEST: (Duration, Duration) = (Duration::from_secs(86_400), Duration::from_secs(900));

/// Asks the servers upstream, by the machine's own routes.
#[derive(Debug)]
pub struct Forwarder {
    resolver: TokioResolver,
    allow: Vec<IpNet>,
}

impl Forwarder {
    /// A forwarder that remembers `cache` answers. Private addresses are taken out of answers,
    /// except those of the networks in `allow`.
    ///
    /// # Errors
    ///
    /// When the resolver cannot be made.
    pub fn new(upstreams: &[IpAddr], cache: u64, allow: Vec<IpNet>) -> anyhow::Result<Self> {
        let servers = upstreams.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 1;
        options.edns0 = true;
        options.cache_size = cache;
        options.positive_max_ttl = Some(LONGEST.0);
        options.negative_max_ttl = Some(LONGEST.1);
        options.preserve_intermediates = true;
        // This machine's names are nobody else's business.
        options.use_hosts_file = ResolveHosts::Never;
        // One server is told of a question, unless it does not answer.
        options.num_concurrent_reqs = 1;
        let resolver = builder.build().context("cannot create the DNS forwarder")?;
        Ok(Self { resolver, allow })
    }

    /// The answer to a message; `None` where none is due.
    pub async fn answer(&self, question: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let Ok(request) = Message::from_vec(question) else {
            return respond(question, ResponseCode::FormErr);
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let response = self.response(&request).await;
        let most = match (is_datagram, &request.edns) {
            (false, _) => u16::MAX,
            (true, None) => 512,
            (true, Some(edns)) => edns.max_payload().clamp(512, MAX_DATAGRAM),
        };
        match response.to_vec() {
            Ok(bytes) if bytes.len() <= most.into() => Some(bytes),
            // The consumer comes again by TCP.
            Ok(_) => response.truncate().to_vec().ok(),
            Err(_) => respond(question, ResponseCode::ServFail),
        }
    }

    async fn response(&self, request: &Message) -> Message {
        let asked = &request.metadata;
        let mut response = Message::response(asked.id, asked.op_code);
        response.metadata.recursion_desired = asked.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_queries(request.queries.iter().cloned());
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            response.set_edns(edns);
        }
        response.metadata.response_code = match request.queries.as_slice() {
            _ if asked.op_code != OpCode::Query => ResponseCode::NotImp,
            [query] if query.query_class() != DNSClass::IN => ResponseCode::Refused,
            [query] => match query.query_type() {
                // Whole zones, and answers that are only good for attacks.
                RecordType::ANY | RecordType::AXFR | RecordType::IXFR => ResponseCode::NotImp,
                kind if names::is_private(query.name(), kind) => ResponseCode::NXDomain,
                kind => {
                    let mut name = query.name().clone();
                    name.set_fqdn(true);
                    let found = self.resolver.lookup(name, kind).await;
                    self.fill(&mut response, found.as_ref().map(|found| found.answers()))
                }
            },
            _ => ResponseCode::FormErr,
        };
        response
    }

    /// Puts what was found into a response.
    fn fill(&self, response: &mut Message, found: Result<&[Record], &NetError>) -> ResponseCode {
        match found {
            Ok(answers) => {
                response.add_answers(answers.iter().filter(|it| self.passes(it)).cloned());
                ResponseCode::NoError
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                // With it, the consumer knows for how long to remember that there is none.
                response
                    .add_authorities(none.soa.iter().map(|soa| soa.clone().into_record_of_rdata()));
                match none.response_code {
                    code @ (ResponseCode::NoError | ResponseCode::NXDomain) => code,
                    _ => ResponseCode::ServFail,
                }
            }
            Err(_) => ResponseCode::ServFail,
        }
    }

    /// The records of an answer in DNS's wire format that may be shown.
    #[must_use]
    pub fn filter(&self, answer: &[u8]) -> Vec<Record> {
        let Ok(message) = Message::from_vec(answer) else { return Vec::new() };
        message.answers.into_iter().filter(|record| self.passes(record)).collect()
    }

    /// Whether a record may be shown. A name of the internet with an address of the consumer's own
    /// network is how web pages reach into that.
    fn passes(&self, record: &Record) -> bool {
        let may_pass = |address: IpAddr| {
            !names::is_private_address(address)
                || self.allow.iter().any(|net| net.contains(&address))
        };
        addresses(&record.data).into_iter().all(may_pass)
    }
}

/// The addresses that a record says to connect to.
fn addresses(data: &RData) -> Vec<IpAddr> {
    let hints = |service: &SVCB| {
        let of = |value: &SvcParamValue| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| a.0.into()).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|aaaa| aaaa.0.into()).collect(),
            _ => Vec::new(),
        };
        service.svc_params.iter().flat_map(|(_, value)| of(value)).collect()
    };
    match data {
        RData::A(a) => vec![a.0.into()],
        RData::AAAA(aaaa) => vec![aaaa.0.into()],
        RData::HTTPS(https) => hints(&https.0),
        RData::SVCB(service) => hints(service),
        _ => Vec::new(),
    }
}

/// The answer to who asks too much.
pub(super) fn refused(question: &[u8]) -> Option<Vec<u8>> {
    respond(question, ResponseCode::Refused)
}

/// The answer when there is no room.
pub(super) fn failed(question: &[u8]) -> Option<Vec<u8>> {
    respond(question, ResponseCode::ServFail)
}

/// An answer with nothing but a code, to what may be no message at all. Never one to an answer.
fn respond(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let header: [u8; 12] = *question.first_chunk()?;
    let is_answer = header[2] & 0x80 != 0;
    let id = u16::from_be_bytes([header[0], header[1]]);
    let message = Message::error_msg(id, OpCode::Query, code);
    (!is_answer).then(|| message.to_vec().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::{
        Name,
        rdata::{
            A, AAAA, HTTPS,
            svcb::{IpHint, SvcParamKey},
        },
    };

    use super::*;

    fn service(v4: &str, v6: &str) -> SVCB {
        let v4 = SvcParamValue::Ipv4Hint(IpHint(vec![A(v4.parse().expect("an address"))]));
        let v6 = SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(v6.parse().expect("an address"))]));
        let params = vec![(SvcParamKey::Ipv4Hint, v4), (SvcParamKey::Ipv6Hint, v6)];
        SVCB::new(1, Name::root(), params)
    }

    #[test]
    fn address_hints_are_addresses() {
        let allow = vec!["10.1.0.0/16".parse().expect("a network")];
        let forwarder = Forwarder::new(&[], 1, allow).expect("a forwarder");
        for (v4, v6, passes) in [
            ("9.9.9.9", "2620:fe::fe", true),
            ("192.168.1.1", "2620:fe::fe", false),
            ("9.9.9.9", "fd00::1", false),
            ("9.9.9.9", "64:ff9b::10.2.0.1", false),
            ("10.1.0.1", "2620:fe::fe", true),
        ] {
            for data in [RData::HTTPS(HTTPS(service(v4, v6))), RData::SVCB(service(v4, v6))] {
                let record = Record::from_rdata(Name::root(), 60, data);
                assert_eq!(forwarder.passes(&record), passes, "{record}");
            }
        }
    }
}
