//! What a pod may ask of itself: fields of its object and resources of its containers, as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::pod::Facts;

/// What a container without limits is told: a node of this size.
const NODE_CPU: &str = "2";
const NODE_MEMORY: &str = "4Gi";

/// The value of a `fieldRef`.
pub(super) fn field(pod: &Pod, facts: &Facts, selector: &ObjectFieldSelector) -> Result<String, String> {
    let spec = pod.spec.as_ref().ok_or("a pod without a specification")?;
    let path = selector.field_path.as_str();
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => listed(pod.labels()),
        "metadata.annotations" => listed(pod.annotations()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" | "status.podIPs" => facts.address.to_string(),
        "status.hostIP" | "status.hostIPs" => facts.node_address.to_string(),
        _ => {
            let (map, key) =
                path.strip_suffix("']").and_then(|path| path.split_once("['")).ok_or_else(|| unknown(path))?;
            let map = match map {
                "metadata.labels" => pod.labels(),
                "metadata.annotations" => pod.annotations(),
                _ => return Err(unknown(path)),
            };
            map.get(key).cloned().unwrap_or_default()
        }
    })
}

/// The value of a `resourceFieldRef`: cores or bytes, in units of the divisor, rounded up.
pub(super) fn resource(pod: &Pod, own: Option<&Container>, selector: &ResourceFieldSelector) -> Result<String, String> {
    let spec = pod.spec.as_ref().ok_or("a pod without a specification")?;
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let named = selector.container_name.as_ref();
    let container = named.map_or(own, |name| all().find(|container| container.name == *name));
    let container = container.ok_or_else(|| unknown(&selector.resource))?;
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| unknown(&selector.resource))?;
    let resources = container.resources.as_ref();
    let (limits, requests) = (resources.and_then(|r| r.limits.as_ref()), resources.and_then(|r| r.requests.as_ref()));
    let whole_node = || Quantity(if name == "cpu" { NODE_CPU } else { NODE_MEMORY }.to_owned());
    let given = match kind {
        "limits" => Some(limits.and_then(|limits| limits.get(name)).cloned().unwrap_or_else(whole_node)),
        _ => requests.and_then(|requests| requests.get(name)).cloned(),
    };
    let given = given.map_or(Some(0), |quantity| thousandths(&quantity.0));
    // The API server writes 0 where nothing was said.
    let divisor = selector.divisor.as_ref().map_or(Some(0), |divisor| thousandths(&divisor.0));
    let divisor = divisor.map(|divisor| if divisor == 0 { 1_000 } else { divisor });
    let (given, divisor) = given.zip(divisor).ok_or_else(|| unknown(&selector.resource))?;
    Ok(given.div_ceil(divisor).to_string())
}

fn unknown(path: &str) -> String {
    format!("the node in miniature does not know `{path}`")
}

/// As the downward API writes maps.
fn listed(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A quantity in thousandths of its unit.
fn thousandths(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let factor: u64 = match suffix {
        "m" => return number.parse().ok(),
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        _ => return None,
    };
    // 0.5 of a core, 1.5 of a gigabyte.
    number.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| (number * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_what_the_api_says() {
        for (text, value) in
            [("250m", 250), ("2", 2_000), ("0.5", 500), ("64Mi", 64 * 1_048_576_000), ("1k", 1_000_000)]
        {
            assert_eq!(thousandths(text), Some(value), "{text}");
        }
        assert_eq!(thousandths("1Xi"), None);
    }
}
