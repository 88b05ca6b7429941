//! What a cluster's name server does: names of Services and their endpoints, over UDP, as pods ask for them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio::net::UdpSocket;

use super::backends::{Backends, cluster_ip};
use super::network::NAME_SERVER;

/// What names of the cluster end with.
pub const DOMAIN: &str = "cluster.local";
const PORT: u16 = 53;
/// Seconds an answer may be kept.
const TTL: u32 = 1;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const CLASS_IN: u16 = 1;
/// Response, authoritative.
const ANSWER: u16 = 0x8400;
const NO_SUCH_NAME: u16 = 3;

/// A pod's `/etc/resolv.conf`.
pub fn resolver(namespace: &str) -> String {
    format!("nameserver {NAME_SERVER}\nsearch {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n")
}

/// Answers, for ever.
pub async fn serve(backends: Backends) {
    let socket = UdpSocket::bind((NAME_SERVER, PORT)).await.expect("the network is ours");
    let mut message = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut message).await else { continue };
        if let Some(answer) = answer(&message[..length], |name| find(&backends, name)) {
            // One that is lost is asked for again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    /// The name it stands for, whose addresses these are if it is one of the cluster's.
    alias: Option<String>,
    addresses: BTreeSet<Ipv4Addr>,
}

fn find(backends: &Backends, name: &str) -> Option<Found> {
    let labels: Vec<&str> = name.strip_suffix(DOMAIN)?.strip_suffix(".svc.")?.split('.').collect();
    let (host, service, namespace) = match labels[..] {
        [service, namespace] => (None, service, namespace),
        [host, service, namespace] => (Some(host), service, namespace),
        _ => return None,
    };
    let known = backends.service(namespace, service)?;
    if let Some(alias) = known.spec.as_ref().and_then(|spec| spec.external_name.clone()) {
        // One step: an alias of itself must not be followed for ever.
        let target = alias.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix(".svc.")?.split_once('.'));
        let target = target.and_then(|(service, namespace)| backends.service(namespace, service));
        let addresses = target.as_deref().and_then(cluster_ip).into_iter().collect();
        return Some(Found { alias: Some(alias), addresses });
    }
    let addresses = match (host, cluster_ip(&known)) {
        (None, Some(address)) => BTreeSet::from([address]),
        (host, _) => backends.addresses(namespace, service, host),
    };
    (!addresses.is_empty()).then_some(Found { alias: None, addresses })
}

/// The answer to a message; `None` for what is no question (RFC 1035 section 4).
fn answer(message: &[u8], find: impl FnOnce(&str) -> Option<Found>) -> Option<Vec<u8>> {
    let flags = u16::from_be_bytes([*message.get(2)?, *message.get(3)?]);
    let questions = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    if flags & 0x8000 != 0 || questions != 1 {
        return None;
    }
    let (name, end) = read_name(message, 12)?;
    let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
    let question = message.get(12..end + 4)?;
    let found = find(&name.to_lowercase());

    let code = if found.is_some() { 0 } else { NO_SUCH_NAME };
    let found = found.unwrap_or_default();
    // The name is the question's: what stands at byte 12.
    let asked = vec![0xc0, 12];
    let alias = found.alias.as_deref().map(write_name);
    let owner = alias.clone().unwrap_or_else(|| asked.clone());
    let mut records: Vec<(Vec<u8>, u16, Vec<u8>)> = Vec::new();
    records.extend(alias.map(|alias| (asked, TYPE_CNAME, alias)));
    // Other types are asked for too; there are none.
    if kind == TYPE_A {
        records.extend(found.addresses.iter().map(|address| (owner.clone(), TYPE_A, address.octets().to_vec())));
    }
    // Without the extension records (EDNS) that a resolver may have added: it copes.
    let head =
        [u16::from_be_bytes([message[0], message[1]]), ANSWER | flags & 0x0100 | code, 1, records.len() as u16, 0, 0];
    let mut out: Vec<u8> = head.iter().flat_map(|field| field.to_be_bytes()).collect();
    out.extend(question);
    for (owner, kind, data) in records {
        out.extend(owner);
        out.extend([kind, CLASS_IN].iter().flat_map(|field| field.to_be_bytes()));
        out.extend(TTL.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// A name without its last dot, and where it ends.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            1..=63 => labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned()),
            // Questions have nothing to point at.
            _ => return None,
        }
        at += length;
    }
}

fn write_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16, found: Option<Found>) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(write_name(name));
        message.extend([kind, CLASS_IN].iter().flat_map(|field| field.to_be_bytes()));
        answer(&message, |asked| {
            assert_eq!(asked, name.to_lowercase());
            found
        })
        .unwrap()
    }

    #[test]
    fn a_name_has_its_addresses_and_no_others() {
        let addresses = Found { alias: None, addresses: BTreeSet::from([Ipv4Addr::new(10, 96, 0, 7)]) };
        let answer = ask("Orders.shop.svc.cluster.local", TYPE_A, Some(addresses.clone()));
        assert_eq!(answer[..12], [0xab, 0xcd, 0x85, 0x00, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[answer.len() - 16..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 96, 0, 7]);
        let none = ask("orders.shop.svc.cluster.local", 28, Some(addresses));
        assert_eq!((none[3], none[7]), (0x00, 0), "IPv6 addresses: the name exists, and has none");
        let unknown = ask("orders.shop.svc.cluster.local", TYPE_A, None);
        assert_eq!((unknown[3], unknown[7]), (0x03, 0));
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        assert_eq!(answer(&[0; 11], |_| None), None);
        assert_eq!(answer(&[0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1], |_| None), None, "an answer");
        assert_eq!(answer(&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, b'a'], |_| None), None, "a name without end");
    }
}
