//! Filter chains that are chosen by the name a TLS client asks for: passed through, never terminated.

use std::collections::HashSet;

use weft_core::model::{Protocol, ServerNameSpec, WeightedCluster};
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;

use super::field::{Decoding, Refusal, Within, present, unset};
use super::listener::{Chain, Service, Target};

/// Longest name there can be in a ClientHello.
const LONGEST: usize = 253;

/// The names of a chain: whole ones, or `*.` and what they end in, in lower case as Envoy demands.
pub(super) fn names(names: &[String]) -> Decoding<Vec<String>> {
    let is_name = |name: &&String| {
        let labels = name.strip_prefix("*.").unwrap_or(name).split('.');
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        name.len() <= LONGEST && labels.into_iter().all(|label| !label.is_empty() && label.bytes().all(is_letter))
    };
    match names.iter().position(|name| !is_name(&name)) {
        Some(at) => {
            let supported = "a host's name in lower case, or `*.` before one";
            Err(Refusal::new(&format!("server_names[{at}]"), &names[at], supported))
        }
        None => Ok(names.to_vec()),
    }
}

/// `weighted_clusters` of a `tcp_proxy`.
pub(super) fn clusters(weighted: &tcp_proxy::WeightedCluster) -> Decoding<Vec<WeightedCluster>> {
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (index, cluster) in weighted.clusters.iter().enumerate() {
        let read = || {
            present(&cluster.name, "name")?;
            unset(&[("metadata_match", cluster.metadata_match.is_some())])?;
            if cluster.weight == 0 {
                return Err(Refusal::new("weight", 0, "at least 1"));
            }
            Ok(WeightedCluster { cluster: cluster.name.as_str().into(), weight: cluster.weight })
        };
        clusters.push(read().within_item("clusters", index)?);
    }
    if clusters.is_empty() { Err(Refusal::missing("clusters", "at least one")) } else { Ok(clusters) }
}

/// Folds chains of which one at least has names. A chain without names takes whatever the others leave.
pub(super) fn service(chains: &[Chain]) -> Decoding<Service> {
    let (mut seen, mut server_names) = (HashSet::new(), Vec::with_capacity(chains.len()));
    let mut has_others = false;
    for (index, chain) in chains.iter().enumerate() {
        let entry = passed_through(chain).within_item("filter_chains", index)?;
        let again = entry.names.iter().find(|name| !seen.insert(name.as_str().to_owned()));
        if again.is_some() || (entry.names.is_empty() && has_others) {
            let found = again.map_or("two chains without names", String::as_str);
            return Err(Refusal::new("filter_chain_match.server_names", found, "each name once"))
                .within_item("filter_chains", index);
        }
        has_others |= entry.names.is_empty();
        server_names.push(entry);
    }
    Ok(Service { protocol: Protocol::Tls, routes: None, cluster: None, server_names, http: None })
}

fn passed_through(chain: &Chain) -> Decoding<ServerNameSpec> {
    if chain.http_only {
        let supported = "leaving it out beside server_names";
        return Err(Refusal::new("filter_chain_match.application_protocols", "a value", supported));
    }
    match &chain.target {
        Target::Tcp(clusters) => Ok(ServerNameSpec { names: chain.server_names.clone(), clusters: clusters.clone() }),
        Target::Http(_) => {
            Err(Refusal::new("filters[0]", "http_connection_manager", "tcp_proxy: TLS is passed through by name"))
        }
    }
}
