//! `weft.v1.Destination`: who is behind an address.

use std::net::{IpAddr, SocketAddr};

use weft_core::model::{DestinationSpec, PeerSpec, Who};
use weft_core::names::SpiffeId;
use weft_proto::weft;
use weft_proto::weft::destination::Who as Message;

use super::field::{Decoding, Refusal, Within, present};

/// Reads a destination that was asked for by this name.
pub(super) fn destination(name: &str, message: &weft::Destination) -> Decoding<DestinationSpec> {
    let who = match &message.who {
        Some(Message::Service(service)) => {
            if name.parse::<SocketAddr>().is_err() {
                return Err(Refusal::new("name", format_args!("`{name}`"), "IP:PORT for a service"));
            }
            present(&service.listener, "listener").within("service")?;
            Who::Service(service.listener.as_str().into())
        }
        Some(Message::Peer(peer)) => Who::Peer(self::peer(name, peer)?),
        None => return Err(Refusal::missing("who", "service or peer")),
    };
    Ok(DestinationSpec { name: name.into(), who })
}

fn peer(name: &str, peer: &weft::destination::Peer) -> Decoding<PeerSpec> {
    let address: IpAddr =
        name.parse().map_err(|_| Refusal::new("name", format_args!("`{name}`"), "IP for a workload"))?;
    present(&peer.namespace, "namespace").within("peer")?;
    let identity = SpiffeId::parse(&peer.spiffe_id)
        .map_err(|_| Refusal::new("spiffe_id", format_args!("`{}`", peer.spiffe_id), "the identity of a workload"))
        .within("peer")?;
    let port = |port: &u32| {
        let number = u16::try_from(*port).ok().filter(|number| *number > 0);
        number.ok_or_else(|| Refusal::new("except_ports", port, "1 to 65535"))
    };
    let except = peer.except_ports.iter().map(port).collect::<Decoding<Box<[u16]>>>().within("peer")?;
    Ok(PeerSpec { address, namespace: peer.namespace.as_str().into(), identity, except })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use weft_proto::weft::destination::{Peer, Service};

    use crate::xds::decode::{Decoded, decode};

    use super::*;

    fn read(name: &str, who: Message) -> Result<Who, String> {
        let body = weft::Destination { who: Some(who) }.encode_to_vec();
        match decode(weft_proto::names::DESTINATION, name, &body) {
            Ok(Decoded::Destination(spec)) => {
                assert_eq!(spec.name.as_str(), name);
                Ok(spec.who)
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn service(listener: &str) -> Message {
        Message::Service(Service { listener: listener.to_owned() })
    }

    fn workload(spiffe_id: &str, except_ports: &[u32]) -> Message {
        Message::Peer(Peer {
            namespace: "shop".to_owned(),
            spiffe_id: spiffe_id.to_owned(),
            except_ports: except_ports.to_vec(),
        })
    }

    const ID: &str = "spiffe://weft.local/ns/shop/sa/web";

    #[test]
    fn a_destination_is_a_service_at_its_port_or_a_workload_at_any() {
        assert_eq!(read("10.96.0.7:80", service("outbound/a")), Ok(Who::Service("outbound/a".into())));
        assert_eq!(read("[fd00::7]:80", service("outbound/a")), Ok(Who::Service("outbound/a".into())));
        let expected = PeerSpec {
            address: "10.0.0.9".parse().unwrap(),
            namespace: "shop".into(),
            identity: SpiffeId::parse(ID).unwrap(),
            except: Box::from([22, 9090]),
        };
        assert_eq!(read("10.0.0.9", workload(ID, &[22, 9090])), Ok(Who::Peer(expected)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_fields_name() {
        let cases = [
            ("10.0.0.9", service("outbound/a"), "name"),
            ("10.0.0.9:80", service(""), "service.listener"),
            ("", service("outbound/a"), "name"),
            ("10.0.0.9:80", workload(ID, &[]), "name"),
            ("10.0.0.9", workload("spiffe://weft.local/web", &[]), "peer.spiffe_id"),
            ("10.0.0.9", workload(ID, &[0]), "peer.except_ports"),
            ("10.0.0.9", workload(ID, &[65_536]), "peer.except_ports"),
        ];
        for (name, who, field) in cases {
            let error = read(name, who).unwrap_err();
            assert!(error.contains(&format!("{field}: found")), "{error} does not name {field}");
        }
        assert!(decode(weft_proto::names::DESTINATION, "10.0.0.9", b"").unwrap_err().to_string().contains("who"));
    }
}
