//! The node's taint: it keeps pods away until those of the mesh would be captured.

use serde_json::{Value, json};
use weft_proto::names::CNI_TAINT;

use crate::cni::api::{Api, ApiError};

use super::InstallError;

/// Others change the taints of a node too; each of them comes between once at most.
const ATTEMPTS: u32 = 5;

/// Takes the taint off; tells whether it was there.
pub(super) async fn take_off(api: &Api, node: &str) -> Result<bool, InstallError> {
    let path = path(node);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let found = api.get(&path).await?;
        let Some(patch) = patch(&found) else { return Ok(false) };
        match api.patch(&path, &patch).await {
            Ok(_) => return Ok(true),
            // The taints are not those any more that were read.
            Err(ApiError::Refused { status, .. }) if matches!(status.as_u16(), 409 | 422) && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the node may not even be looked at any more.
pub(super) async fn may_not_look(api: &Api, node: &str) -> bool {
    matches!(api.get(&path(node)).await, Err(error) if error.status().is_some_and(|status| status.as_u16() == 403))
}

fn path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

/// What takes the taint off, provided that the taints are still those that were read; `None` where it is not there.
fn patch(node: &Value) -> Option<Value> {
    let taints = node.pointer("/spec/taints")?.as_array()?;
    let others: Vec<&Value> =
        taints.iter().filter(|taint| taint.get("key").and_then(Value::as_str) != Some(CNI_TAINT)).collect();
    if others.len() == taints.len() {
        return None;
    }
    Some(json!([
        {"op": "test", "path": "/spec/taints", "value": taints},
        {"op": "replace", "path": "/spec/taints", "value": others},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_taint_is_taken_off() {
        let (ours, other) = (
            json!({"key": CNI_TAINT, "effect": "NoSchedule"}),
            json!({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}),
        );
        let node = |taints: Value| json!({"spec": {"taints": taints}});
        assert_eq!(patch(&json!({"spec": {}})), None);
        assert_eq!(patch(&node(json!([other]))), None);
        let expected = json!([
            {"op": "test", "path": "/spec/taints", "value": [ours, other]},
            {"op": "replace", "path": "/spec/taints", "value": [other]},
        ]);
        assert_eq!(patch(&node(json!([ours, other]))), Some(expected));
    }
}
