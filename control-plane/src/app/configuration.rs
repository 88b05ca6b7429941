//! What one proxy is sent, for people: read by the proxy's own decoder, and shown in the form of its own dump.
//!
//! Of a proxy that asks for what it uses, that and what is for its own workload; of others, and of one that is not connected,
//! all there is.
//!
//! Both ends can so be compared line by line, and a resource the proxies would refuse is told here as well.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_proxy::admin;
use weft_proxy::state::{Change, Store};
use weft_proxy::xds::decode::{Decoded, decode};

use super::parts::{Proxies, status};
use crate::manage::view::{Configuration, Refusal};
use crate::serve::{Asked, RefusedResources};
use crate::world::{Kind, Resource, View, WorkloadKey};

/// More of these are counted, not told.
const UNREADABLE: usize = 32;

/// `None` of a workload that is neither connected nor described by any document.
pub(super) fn configuration(proxies: &Proxies, workload: &str) -> Option<Configuration> {
    let view = proxies.world.view(&WorkloadKey::from(workload));
    let (proxy, asked) = proxies.ads.proxy(workload).map_or((None, None), |(proxy, asked)| (Some(proxy), asked));
    if proxy.is_none() && view.account().is_none() {
        return None;
    }
    let refused = proxy.iter().flat_map(|proxy| &proxy.refused).map(refusal).collect();
    let (change, resources, unreadable) = read(&view, asked.as_ref());
    let namespace = workload.split('/').next().unwrap_or_default();
    let store = Store::new(format!("{namespace}/{}", view.account().unwrap_or_default()));
    store.apply(change);
    Some(Configuration {
        workload: workload.to_owned(),
        revision: view.revision(),
        proxy: proxy.map(|proxy| status(proxy).into()),
        refused,
        resources,
        asked: asked.map(counted),
        unreadable,
        config: without_live_state(admin::configuration(&store)),
    })
}

/// Counts and verdicts are the proxy's own: here they would be zeros that look like facts.
fn without_live_state(mut config: Value) -> Value {
    let lists = |part: &mut Value| part.as_array_mut().map(std::mem::take).unwrap_or_default();
    let strip = |object: &mut Value, fields: &[&str]| {
        if let Some(object) = object.as_object_mut() {
            object.retain(|field, _| !fields.contains(&field.as_str()));
        }
    };
    let mut listeners = lists(&mut config["listeners"]);
    for listener in &mut listeners {
        strip(listener, &["detected"]);
    }
    let mut clusters = lists(&mut config["clusters"]);
    for cluster in &mut clusters {
        for endpoint in cluster["endpoints"].as_array_mut().into_iter().flatten() {
            strip(endpoint, &["ejected", "in_flight", "requests", "latency_ms"]);
        }
    }
    config["listeners"] = listeners.into();
    config["clusters"] = clusters.into();
    config
}

/// How many names are asked for, by type.
fn counted(asked: Asked) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (kind, _) in asked {
        *counts.entry(short(kind.type_url())).or_default() += 1;
    }
    counts
}

/// What of a kind is sent, own resources first.
fn sent<'v>(view: &'v View, kind: Kind, asked: Option<&Asked>) -> Vec<&'v Resource> {
    let Some(asked) = asked else { return view.all(kind).collect() };
    let own = view.all_own(kind);
    let names = asked.iter().filter(|(of, name)| *of == kind && view.own(kind, name).is_none());
    let mut named: Vec<&Resource> = names.filter_map(|(_, name)| view.get(kind, name)).collect();
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    own.chain(named).collect()
}

fn read(view: &View, asked: Option<&Asked>) -> (Change, BTreeMap<String, u64>, Vec<String>) {
    let (mut change, mut counts, mut unreadable) = (Change::default(), BTreeMap::new(), Vec::new());
    let mut untold = 0;
    for kind in Kind::ALL.into_iter().filter(|kind| asked.is_some() || kind.has_wildcard()) {
        let mut count = 0;
        for resource in sent(view, kind, asked) {
            count += 1;
            match decode(resource.type_url, &resource.name, &resource.body) {
                Ok(Decoded::Listener(spec)) => change.listeners.push(spec),
                Ok(Decoded::Routes(spec)) => change.routes.push(spec),
                Ok(Decoded::Cluster(spec)) => change.clusters.push(spec),
                Ok(Decoded::Endpoints(spec)) => change.endpoints.push(spec),
                Ok(Decoded::Destination(spec)) => change.destinations.push(spec),
                Err(error) if unreadable.len() < UNREADABLE => unreadable.push(error.to_string()),
                Err(_) => untold += 1,
            }
        }
        counts.insert(short(kind.type_url()), count);
    }
    if untold > 0 {
        unreadable.push(format!("... and {untold} more"));
    }
    (change, counts, unreadable)
}

fn refusal(refused: &RefusedResources) -> Refusal {
    Refusal {
        kind: short(refused.refused.type_url),
        message: refused.refused.message.clone(),
        at: refused.refused.at,
        names: refused.names.iter().map(ToString::to_string).collect(),
        more: refused.more,
    }
}

/// `Cluster` of `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
fn short(type_url: &str) -> String {
    type_url.rsplit('.').next().unwrap_or(type_url).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tokio::sync::watch;
    use weft_proxy::clock;

    use super::*;
    use crate::app::Publisher;
    use crate::ca::{Authority, AuthorityOptions};
    use crate::compile::Compiler;
    use crate::store::testing::snapshot;

    const DOCUMENTS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {addresses: [10.96.0.2], ports: [{port: 80, protocol: http}], selector: {app: orders}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop, labels: {app: orders}}
spec: {addresses: [10.97.0.5], serviceAccount: orders}
";

    /// A side that faces the proxies, with the documents in force.
    fn proxies() -> (tempfile::TempDir, Proxies) {
        let place = tempfile::tempdir().unwrap();
        let authority = Authority::open(place.path(), &AuthorityOptions::default(), clock::wall()).unwrap();
        (place, Proxies::new(Arc::new(authority)))
    }

    fn publish(proxies: &Proxies) {
        let mut publisher = Publisher {
            publish: proxies.publish(),
            verdicts: Arc::clone(&proxies.verdicts),
            compiler: Compiler::new(proxies.authority.trust_domain()),
            findings: watch::Sender::default(),
        };
        publisher.publish(&Arc::new(snapshot(DOCUMENTS, 7)));
    }

    #[test]
    fn a_proxy_that_asks_is_shown_what_it_asked_for_beside_its_own() {
        let (_place, proxies) = proxies();
        publish(&proxies);
        let view = proxies.world.view(&"shop/orders-1".into());
        let names = [
            (Kind::Listener, "outbound/shop/orders:80"),
            (Kind::Destination, "10.96.0.2:80"),
            (Kind::Destination, "192.0.2.1:80"),
        ];
        let asked: Asked = names.into_iter().map(|(kind, name)| (kind, name.into())).collect();
        let (change, counts, unreadable) = super::read(&view, Some(&asked));
        let count = |kind: &str| counts.get(kind).copied();
        let seen = ["Listener", "Cluster", "RouteConfiguration", "Destination"].map(count);
        assert_eq!(seen, [Some(2), Some(1), Some(0), Some(1)]);
        let listeners: Vec<&str> = change.listeners.iter().map(|listener| listener.name.as_str()).collect();
        assert_eq!(listeners, ["inbound/80", "outbound/shop/orders:80"]);
        assert_eq!(unreadable, Vec::<String>::new());
        assert_eq!(counted(asked), BTreeMap::from([("Destination".to_owned(), 2), ("Listener".to_owned(), 1)]));
        let (_, counts, _) = super::read(&view, None);
        assert_eq!((counts["Cluster"], counts.get("Destination")), (2, None), "others are not sent destinations");
    }

    #[test]
    fn a_proxy_is_told_in_the_form_of_its_own_dump_without_what_only_it_knows() {
        let (_place, proxies) = proxies();
        assert_eq!(configuration(&proxies, "shop/orders-1"), None, "nothing is in force");
        publish(&proxies);

        let found = configuration(&proxies, "shop/orders-1").unwrap();
        assert_eq!((found.revision, &found.proxy, found.unreadable.len()), (7, &None, 0));
        assert!(found.resources["Listener"] >= 2 && found.resources["Cluster"] >= 2, "{:?}", found.resources);
        let named = |part: &str, name: &str| {
            let list = found.config[part].as_array().unwrap();
            list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {list:?}")).clone()
        };
        assert_eq!(named("listeners", "outbound/shop/orders:80")["protocol"], "http");
        let endpoint = &named("clusters", "shop/orders:80")["endpoints"][0];
        assert_eq!((&endpoint["workload"], &endpoint["tls"]), (&json!("shop/orders-1"), &json!("mutual")));
        assert!(endpoint.get("requests").is_none() && endpoint.get("ejected").is_none(), "{endpoint}");
        assert_eq!(configuration(&proxies, "shop/nobody"), None);
    }
}
