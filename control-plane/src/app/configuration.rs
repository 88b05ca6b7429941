//! What one proxy is sent, for people: read by the proxy's own decoder, and shown in the form of its own dump.
//!
//! Both ends can so be compared line by line, and a resource the proxies would refuse is told here as well.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_proxy::admin;
use weft_proxy::state::{Change, Store};
use weft_proxy::xds::decode::{Decoded, decode};

use super::parts::{Proxies, status};
use crate::manage::view::{Configuration, Refusal};
use crate::serve::RefusedResources;
use crate::world::{Kind, View, WorkloadKey};

/// More of these are counted, not told.
const UNREADABLE: usize = 32;

/// `None` of a workload that is neither connected nor described by any document.
pub(super) fn configuration(proxies: &Proxies, workload: &str) -> Option<Configuration> {
    let view = proxies.world.view(&WorkloadKey::from(workload));
    // Of two streams the newer: the other is one that nobody has noticed to be gone.
    let proxy = proxies.ads.proxies().into_iter().rfind(|proxy| proxy.workload == workload);
    if proxy.is_none() && view.account().is_none() {
        return None;
    }
    let refused = proxy.iter().flat_map(|proxy| &proxy.refused).map(refusal).collect();
    let (change, resources, unreadable) = read(&view);
    let namespace = workload.split('/').next().unwrap_or_default();
    let store = Store::new(format!("{namespace}/{}", view.account().unwrap_or_default()));
    store.apply(change);
    Some(Configuration {
        workload: workload.to_owned(),
        revision: view.revision(),
        proxy: proxy.map(|proxy| status(proxy).into()),
        refused,
        resources,
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

fn read(view: &View) -> (Change, BTreeMap<String, u64>, Vec<String>) {
    let (mut change, mut counts, mut unreadable) = (Change::default(), BTreeMap::new(), Vec::new());
    let mut untold = 0;
    for kind in Kind::ALL {
        let mut count = 0;
        for resource in view.all(kind) {
            count += 1;
            match decode(resource.type_url, &resource.name, &resource.body) {
                Ok(Decoded::Listener(spec)) => change.listeners.push(spec),
                Ok(Decoded::Routes(spec)) => change.routes.push(spec),
                Ok(Decoded::Cluster(spec)) => change.clusters.push(spec),
                Ok(Decoded::Endpoints(spec)) => change.endpoints.push(spec),
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

    #[test]
    fn a_proxy_is_told_in_the_form_of_its_own_dump_without_what_only_it_knows() {
        let place = tempfile::tempdir().unwrap();
        let authority = Authority::open(place.path(), &AuthorityOptions::default(), clock::wall()).unwrap();
        let proxies = Proxies::new(Arc::new(authority));
        assert_eq!(configuration(&proxies, "shop/orders-1"), None, "nothing is in force");
        let mut publisher = Publisher {
            publish: proxies.publish(),
            verdicts: Arc::clone(&proxies.verdicts),
            compiler: Compiler::new(proxies.authority.trust_domain()),
            findings: watch::Sender::default(),
        };
        publisher.publish(&Arc::new(snapshot(DOCUMENTS, 7)));

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
