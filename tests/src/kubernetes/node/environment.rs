//! A container's command and environment, as its specification gives them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client, ResourceExt};

use super::images::Image;
use super::pod::Facts;
use super::values;
use crate::kubernetes::network::SERVICE_OF_API;

/// What runtimes set where an image does not.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything of a container that its object says in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

pub(super) async fn words(
    client: &Client,
    pod: &Pod,
    facts: &Facts,
    container: &Container,
    image: &Image,
) -> Result<Words, String> {
    let spec = pod.spec.as_ref().ok_or("a pod without a specification")?;
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), spec.hostname.clone().unwrap_or_else(|| pod.name_any())),
        ("KUBERNETES_SERVICE_HOST".to_owned(), SERVICE_OF_API.to_string()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), "443".to_owned()),
    ]);
    let namespace = pod.namespace().unwrap_or_default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut values = BTreeMap::new();
        if let Some(reference) = &from.config_map_ref {
            values = config_map(client, &namespace, &reference.name, reference.optional).await?;
        } else if let Some(reference) = &from.secret_ref {
            values = secret(client, &namespace, &reference.name, reference.optional).await?;
        }
        environment.extend(values.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &environment)),
            (None, Some(from)) => looked_up(client, pod, facts, container, from).await?,
            (None, None) => Some(String::new()),
        };
        environment.extend(value.map(|value| (variable.name.clone(), value)));
    }

    let given = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    let mut command = given(&container.command).unwrap_or_else(|| image.entry_point.clone());
    command.extend(container.args.iter().flatten().cloned());
    let command = command.iter().map(|word| expand(word, &environment)).collect();
    Ok(Words { command, environment })
}

/// `None` for what is optional and absent.
async fn looked_up(
    client: &Client,
    pod: &Pod,
    facts: &Facts,
    container: &Container,
    from: &EnvVarSource,
) -> Result<Option<String>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(selector) = &from.field_ref {
        return values::field(pod, facts, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return values::resource(pod, Some(container), selector).map(Some);
    }
    let (found, key, optional) = if let Some(reference) = &from.config_map_key_ref {
        let found = config_map(client, &namespace, &reference.name, reference.optional).await?;
        (found, &reference.key, reference.optional)
    } else if let Some(reference) = &from.secret_key_ref {
        let found = secret(client, &namespace, &reference.name, reference.optional).await?;
        (found, &reference.key, reference.optional)
    } else {
        return Err("a variable whose source the node in miniature does not know".to_owned());
    };
    match found.get(key) {
        Some(value) => Ok(Some(value.clone())),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("no key `{key}`")),
    }
}

/// The entries of a `ConfigMap`; none where it is optional and absent.
pub(super) async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    let found = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await;
    match found.map_err(|error| error.to_string())? {
        Some(map) => Ok(map.data.unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

/// The entries of a Secret, as text.
pub(super) async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, String> {
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await;
    match found.map_err(|error| error.to_string())? {
        Some(secret) => {
            let entries = secret.data.unwrap_or_default().into_iter();
            Ok(entries.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

/// `$(NAME)` is the variable if there is one; `$$` is a dollar.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match environment.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_where_the_api_says() {
        let environment = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expanded) in [
            ("--a=$(A)", "--a=1"),
            ("$(A)$(A)", "11"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A", "$A"),
            ("cost: 5$", "cost: 5$"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &environment), expanded, "{text}");
        }
    }
}
