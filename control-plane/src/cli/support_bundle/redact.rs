//! What must not leave with a bundle is taken out: keys, tokens, and what applications were given.
//!
//! Secrets are never asked for; this is the second line. Objects lose by their structure what may hold secrets, and all
//! text loses what has the look of one.

use serde_json::Value;

use crate::kubernetes::names;

/// Instead of what was there.
pub(super) const REDACTED: &str = "(redacted)";
/// Fields whose text is secret wherever they are.
const SECRET_FIELDS: [&str; 7] =
    ["token", "password", "clientsecret", "authorization", "apikey", "tls.key", "private_key"];
/// Parts of names of variables whose values are secret.
const SECRET_WORDS: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "KEY"];
/// Annotations of a pod that are shown with their values.
const SHOWN_ANNOTATIONS: [&str; 2] = ["weft.dev/", "kubectl.kubernetes.io/default-container"];
/// How join tokens begin.
const JOIN_TOKEN: &str = "weft-join-";
/// Shortest text after `Bearer` that is taken for a token.
const LEAST_BEARER: usize = 8;

/// An object of Kubernetes or of ours, without what may be secret.
pub(super) fn object(mut value: Value) -> Value {
    if value.pointer("/spec/containers").is_some() {
        pod(&mut value);
    }
    walk(&mut value);
    value
}

/// The pod's own containers are its author's: what they were given says nothing of the mesh.
fn pod(pod: &mut Value) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let is_ours = container["name"].as_str().is_some_and(|name| {
                [names::PROXY_CONTAINER, names::INIT_CONTAINER, names::CONTROL_PLANE, names::CNI].contains(&name)
            });
            if is_ours {
                continue;
            }
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                if variable.get("value").is_some() {
                    variable["value"] = REDACTED.into();
                }
            }
            for field in ["command", "args", "lifecycle"] {
                if container.get(field).is_some() {
                    container[field] = REDACTED.into();
                }
            }
        }
    }
    for (name, value) in pod["metadata"]["annotations"].as_object_mut().into_iter().flatten() {
        if !SHOWN_ANNOTATIONS.iter().any(|shown| name.starts_with(shown)) {
            *value = REDACTED.into();
        }
    }
}

fn walk(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                name != "managedFields" && name != "kubectl.kubernetes.io/last-applied-configuration"
            });
            let is_secret_variable =
                fields.get("name").and_then(Value::as_str).map(str::to_ascii_uppercase).is_some_and(|name| {
                    SECRET_WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
                });
            for (name, value) in fields.iter_mut() {
                let is_secret = SECRET_FIELDS.contains(&name.to_ascii_lowercase().as_str())
                    || (is_secret_variable && name == "value");
                if is_secret && value.is_string() {
                    *value = REDACTED.into();
                } else {
                    walk(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::String(text) => *text = self::text(text),
        _ => {}
    }
}

/// Text without private keys, bearer tokens, join tokens and what looks like a JSON Web Token.
pub(super) fn text(text: &str) -> String {
    let text = without_keys(text);
    if !text.contains("eyJ") && !text.contains(JOIN_TOKEN) && !text.to_ascii_lowercase().contains("bearer ") {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let mut after_bearer = false;
    let mut flush = |word: &mut String, out: &mut String| {
        let is_token = is_token(word) || (after_bearer && word.len() >= LEAST_BEARER);
        out.push_str(if is_token { REDACTED } else { word });
        after_bearer = word.eq_ignore_ascii_case("bearer") || (after_bearer && word.is_empty());
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=') {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// A join token, or three parts in base64url, the first of which is the JSON of a header. What stands before an equals sign is a
/// name.
fn is_token(word: &str) -> bool {
    let token = word.rsplit('=').next().unwrap_or(word);
    if token.len() > JOIN_TOKEN.len() && token.starts_with(JOIN_TOKEN) {
        return true;
    }
    let parts: Vec<&str> = token.split('.').collect();
    parts.len() == 3 && parts[0].starts_with("eyJ") && parts.iter().all(|part| part.len() > 4)
}

fn without_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "PRIVATE KEY-----";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(at);
        out.push_str(before);
        // The label of the block ends with the dashes of its line.
        let head_end = block[BEGIN.len()..].find("-----").map_or(block.len(), |end| BEGIN.len() + end + 5);
        if !block[..head_end].ends_with(END) {
            out.push_str(&block[..head_end]);
            rest = &block[head_end..];
            continue;
        }
        out.push_str(REDACTED);
        // One that does not end goes to the end of the text.
        let end = block[head_end..].find(END).map_or(block.len(), |end| head_end + end + END.len());
        rest = &block[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

    #[test]
    fn text_loses_what_looks_like_a_secret_and_nothing_else() {
        for (before, after) in [
            (format!("a {TOKEN} b"), "a (redacted) b".to_owned()),
            (format!("token=\"{TOKEN}\""), "token=\"(redacted)\"".into()),
            ("authorization: Bearer abcdefgh.ij".into(), "authorization: Bearer (redacted)".into()),
            ("x=weft-join-0a1b2c y".into(), "(redacted) y".into()),
            ("the bearer of this".into(), "the bearer of this".into()),
            (format!("x\n{KEY}\ny {CERTIFICATE}"), format!("x\n(redacted)\ny {CERTIFICATE}")),
            ("-----BEGIN PRIVATE KEY-----\nMHc".into(), "(redacted)".into()),
            ("eyJ.is.no".into(), "eyJ.is.no".into()),
            (CERTIFICATE.into(), CERTIFICATE.into()),
        ] {
            assert_eq!(text(&before), after, "{before}");
        }
    }

    #[test]
    fn objects_lose_what_applications_were_given_and_keep_what_is_ours() {
        let pod = json!({
            "metadata": {"managedFields": [1], "annotations": {"weft.dev/capture": "cni", "vault": "s3cret",
                "kubectl.kubernetes.io/last-applied-configuration": "s3cret"}},
            "spec": {
                "initContainers": [{"name": "weft-proxy", "command": ["/weft-proxy"], "env": [
                    {"name": "WEFT_LOG", "value": "info"}, {"name": "MY_PASSWORD", "value": "s3cret"},
                    {"name": "WEFT_JOIN_TOKEN_FILE", "value": "/var/run/secrets/weft.dev/token"}]}],
                "containers": [{"name": "web", "args": ["--password=s3cret"], "env": [
                    {"name": "URL", "value": "postgres://u:s3cret@db"}, {"name": "N", "valueFrom": {"secretKeyRef": {"name": "db", "key": "k"}}}]}],
            },
        });
        let after = object(pod);
        let text = after.to_string();
        assert!(!text.contains("s3cret") && !text.contains("managedFields"), "{text}");
        assert_eq!(after["metadata"]["annotations"]["weft.dev/capture"], "cni");
        let ours = &after["spec"]["initContainers"][0];
        assert_eq!((&ours["env"][0]["value"], &ours["command"][0]), (&json!("info"), &json!("/weft-proxy")));
        assert_eq!(ours["env"][2]["value"], "/var/run/secrets/weft.dev/token");
        assert_eq!(after["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"], "db");
        assert_eq!(
            object(json!({"a": [{"Token": "x", "key": {"token": 5}}]})),
            json!({"a": [{"Token": REDACTED, "key": {"token": 5}}]})
        );
    }
}
