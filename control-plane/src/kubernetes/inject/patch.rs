//! What the API server is told: the difference of two pods, as JSON Patch (RFC 6902).

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, diff};
use serde_json::Value;

/// The operations that make `after` of `before`.
///
/// Init containers put before others are told as such. By position alone, each that follows would be told as changed into
/// its neighbour: right, but long, and nobody could read it in an audit log.
pub fn between(before: &Value, after: &Value) -> Patch {
    let list = |pod: &Value| pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let (old, new) = (list(before), list(after));
    let mut operations = Vec::new();
    let mut staged = before.clone();
    if let Some(added) = added_in_front(&old, &new) {
        for (index, container) in added.iter().enumerate() {
            operations.push(PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["spec", "initContainers", index.to_string().as_str()]),
                value: container.clone(),
            }));
        }
        staged["spec"]["initContainers"] = added.iter().chain(&old).cloned().collect();
    }
    operations.extend(diff(&staged, after).0);
    Patch(operations)
}

/// What stands in `new` before the containers of `old`, if that is how they differ.
fn added_in_front<'a>(old: &[Value], new: &'a [Value]) -> Option<&'a [Value]> {
    let (added, rest) = new.split_at_checked(new.len().checked_sub(old.len())?)?;
    let same_names = rest.iter().zip(old).all(|(one, other)| one["name"] == other["name"]);
    (same_names && !old.is_empty()).then_some(added)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(before: &Value, after: &Value) -> Vec<String> {
        let patch = between(before, after);
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &patch).expect("it applies");
        assert_eq!(patched, *after);
        patch.0.iter().map(|operation| operation.path().to_string()).collect()
    }

    #[test]
    fn containers_put_in_front_are_additions() {
        let pod = |names: &[&str]| {
            let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": name})).collect();
            json!({"spec": {"initContainers": list}})
        };
        let first = "/spec/initContainers/0";
        assert_eq!(paths(&pod(&["a", "b"]), &pod(&["x", "y", "a", "b"])), [first, "/spec/initContainers/1"]);
        assert_eq!(paths(&pod(&["a"]), &pod(&["a"])), Vec::<String>::new());
        let mut changed = pod(&["x", "a"]);
        changed["spec"]["initContainers"][1]["image"] = json!("other");
        assert_eq!(paths(&pod(&["a"]), &changed), [first, "/spec/initContainers/1/image"]);
    }

    #[test]
    fn any_other_difference_is_told_too() {
        let empty = json!({"spec": {}});
        let with =
            json!({"metadata": {"annotations": {"weft.dev/a": "b"}}, "spec": {"initContainers": [{"name": "x"}]}});
        assert_eq!(paths(&empty, &with), ["/metadata", "/spec/initContainers"]);
        assert_eq!(paths(&with, &empty).len(), 2);
        let moved = json!({"spec": {"initContainers": [{"name": "b"}, {"name": "a"}]}});
        paths(&moved, &json!({"spec": {"initContainers": [{"name": "x"}, {"name": "a"}, {"name": "b"}]}}));
        paths(&moved, &json!({"spec": {"initContainers": []}}));
    }
}
