//! What proxies of earlier versions are told in the place of what they cannot read.
//!
//! The compiler makes resources for the proxies of its own version. A proxy that says it is older gets, of what is for its
//! workload alone, the form that its own version knew, with a content hash of its own: the proxy that comes after it is
//! told anew. Of what is for every proxy nothing has ever had to be said in another way; what an older one cannot read of
//! that, it refuses, and keeps what it had. Each form stays for two minor versions (docs/versions.md).

use std::net::{Ipv4Addr, SocketAddr};

use prost::Message;
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use weft_proto::envoy::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::node::NodeFacts;
use crate::version::Minor;
use crate::world::{Kind, Resource, View};

/// How well a proxy reads what the compiler makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// All of it: of this version, or not ours.
    Whole,
    /// Ours from before 0.2.0: it knows neither clusters without addresses of their own nor listeners for every port.
    Before0_2,
}

impl Reader {
    pub(super) fn of(facts: &NodeFacts) -> Self {
        let minor = Minor::of(&facts.version).filter(|_| facts.is_ours);
        if minor.is_some_and(|minor| minor < Minor::new(0, 2)) { Self::Before0_2 } else { Self::Whole }
    }

    /// A view as this one reads it.
    pub(super) fn view(self, view: View) -> View {
        match self {
            Self::Whole => view,
            Self::Before0_2 => view.adapted(before_0_2),
        }
    }
}

/// Inbound connections went to the application at 127.0.0.1; ports that no service has were refused.
fn before_0_2(resource: &Resource) -> Option<Resource> {
    let port = resource.name.strip_prefix("inbound/").map(str::parse::<u16>);
    match (port, resource.kind) {
        // The listener of all other ports, and its cluster.
        (Some(Err(_)), _) => None,
        (Some(Ok(port)), Kind::Cluster) => Some(at_loopback(resource, port)),
        _ => Some(resource.clone()),
    }
}

fn at_loopback(resource: &Resource, port: u16) -> Resource {
    const BY_DESTINATION: ClusterDiscoveryType = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
    // What the compiler made can be read.
    let Ok(mut cluster) = Cluster::decode(&resource.body[..]) else { return resource.clone() };
    if cluster.cluster_discovery_type != Some(BY_DESTINATION) {
        return resource.clone();
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    cluster.lb_policy = LbPolicy::RoundRobin as i32;
    cluster.load_assignment = Some(only(&cluster.name, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    Resource::new(resource.type_url, resource.name.clone(), &cluster)
}

fn only(cluster: &str, address: SocketAddr) -> ClusterLoadAssignment {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let endpoint = HostIdentifier::Endpoint(Endpoint { address, ..Endpoint::default() });
    let endpoints = vec![LbEndpoint { host_identifier: Some(endpoint), ..LbEndpoint::default() }];
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: endpoints, ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_core::names::SpiffeId;
    use weft_proto::discovery::Node;

    use super::*;
    use crate::serve::session::tests::{cluster, listener, node_of};
    use crate::world::{Change, Own, WorkloadKey, World};

    fn reader(user_agent: &str, version: &str) -> Reader {
        let node = Node { user_agent_name: user_agent.to_owned(), ..node_of(version, "shop", "web") };
        Reader::of(&NodeFacts::read(Some(&node), &SpiffeId::workload("shop.local", "shop", "web")).unwrap())
    }

    #[test]
    fn who_says_an_earlier_version_is_told_in_its_form_and_others_are_not() {
        for (user_agent, version, expected) in [
            ("weft", "0.1.0", Reader::Before0_2),
            ("weft", "0.0.9", Reader::Before0_2),
            ("weft", "0.2.0-rc.1", Reader::Whole),
            ("weft", "0.2.0", Reader::Whole),
            ("weft", "1.0.0", Reader::Whole),
            ("weft", "", Reader::Whole),
            ("envoy", "0.1.0", Reader::Whole),
            ("", "0.1.0", Reader::Whole),
        ] {
            assert_eq!(reader(user_agent, version), expected, "{user_agent} {version}");
        }
    }

    fn by_destination(name: &str) -> Resource {
        let by_destination = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
        let cluster = Cluster {
            name: name.to_owned(),
            cluster_discovery_type: Some(by_destination),
            lb_policy: LbPolicy::ClusterProvided as i32,
            ..Cluster::default()
        };
        Resource::new(Kind::Cluster.type_url(), name, &cluster)
    }

    /// What a workload that is captured as a whole is told.
    fn view() -> View {
        let resources = vec![
            by_destination("inbound/8080"),
            by_destination("inbound/any"),
            cluster("inbound/9090", 1),
            listener("inbound/8080", 1),
            listener("inbound/9090", 1),
            listener("inbound/any", 1),
        ];
        let key = WorkloadKey::new("shop", "web");
        let own = BTreeMap::from([(key.clone(), Some(Own { account: "web".into(), resources }))]);
        let world = World::new();
        world.publish(1, Change { shared: vec![cluster("shop/orders:80", 1)], own, ..Change::default() });
        world.view(&key)
    }

    fn all(view: &View) -> Vec<Resource> {
        Kind::ALL.into_iter().flat_map(|kind| view.all(kind)).cloned().collect()
    }

    #[test]
    fn a_proxy_from_before_0_2_gets_its_application_at_loopback_and_no_listener_of_all_ports() {
        let (whole, earlier) = (view(), Reader::Before0_2.view(view()));
        let names: Vec<_> = all(&earlier).iter().map(|resource| (resource.kind, resource.name.to_string())).collect();
        let expected = [
            (Kind::Cluster, "inbound/8080"),
            (Kind::Cluster, "inbound/9090"),
            (Kind::Cluster, "shop/orders:80"),
            (Kind::Listener, "inbound/8080"),
            (Kind::Listener, "inbound/9090"),
        ];
        assert_eq!(names, expected.map(|(kind, name)| (kind, name.to_owned())));
        assert_eq!((earlier.account(), earlier.revision()), (Some("web"), 1));

        let resource = earlier.get(Kind::Cluster, "inbound/8080").unwrap();
        assert_ne!(resource.version, whole.get(Kind::Cluster, "inbound/8080").unwrap().version);
        let cluster = Cluster::decode(&resource.body[..]).unwrap();
        assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),);
        assert_eq!(cluster.load_assignment, Some(only("inbound/8080", "127.0.0.1:8080".parse().unwrap())));
        for (kind, name) in &expected[1..] {
            assert_eq!(earlier.get(*kind, name), whole.get(*kind, name), "{name} is what it is for all");
        }
    }

    #[test]
    fn others_are_told_what_was_made() {
        assert_eq!(all(&Reader::Whole.view(view())), all(&view()));
    }
}
