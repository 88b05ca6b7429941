//! A pod's volumes as directories of this machine: tokens, configuration, and places to write to.
//!
//! They are filled once, before the pod's first container: a kubelet would renew tokens after most of their life, which
//! is longer than any test.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::environment::{config_map, secret};
use super::pod::Facts;
use super::values;

/// Seconds a token is asked for where the volume does not say (API: 1 hour).
const TOKEN_LIFE: i64 = 3_600;
const FILE_MODE: i32 = 0o644;

/// Files of a volume: path in it, content, mode.
type Files = Vec<(String, String, Option<i32>)>;

/// Makes all volumes of a pod below `place`; their directories by name. Those of the node are below `host`, its root.
pub(super) async fn make(
    client: &Client,
    pod: &Pod,
    facts: &Facts,
    host: &Path,
    place: &Path,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let spec = pod.spec.as_ref().ok_or("a pod without a specification")?;
    let mut made = BTreeMap::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.host_path {
            made.insert(volume.name.clone(), of_node(host, source)?);
            continue;
        }
        let directory = place.join(&volume.name);
        let failed = |error: std::io::Error| format!("volume `{}`: {error}", volume.name);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if volume.empty_dir.is_some() {
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        } else {
            let (files, mode) = files(client, pod, facts, volume).await?;
            for (path, content, own) in files {
                write(&directory.join(path), &content, own.or(mode).unwrap_or(FILE_MODE)).map_err(failed)?;
            }
        }
        if let Some(group) = spec.security_context.as_ref().and_then(|context| context.fs_group) {
            chown(&directory, None, Some(group as u32)).map_err(failed)?;
        }
        made.insert(volume.name.clone(), directory);
    }
    Ok(made)
}

/// A file or directory of the node.
fn of_node(host: &Path, source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = host.join(source.path.trim_start_matches('/'));
    if source.type_.as_deref() == Some("DirectoryOrCreate") {
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", source.path))?;
    }
    if path.exists() { Ok(path) } else { Err(format!("hostPath type check failed: {} is not there", source.path)) }
}

async fn files(client: &Client, pod: &Pod, facts: &Facts, volume: &Volume) -> Result<(Files, Option<i32>), String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(source) = &volume.config_map {
        let entries = config_map(client, &namespace, &source.name, source.optional).await?;
        return Ok((chosen(&entries, source.items.as_ref()), source.default_mode));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let entries = secret(client, &namespace, name, source.optional).await?;
        return Ok((chosen(&entries, source.items.as_ref()), source.default_mode));
    }
    if let Some(source) = &volume.downward_api {
        return Ok((downward(pod, facts, source.items.as_ref())?, source.default_mode));
    }
    let Some(source) = &volume.projected else {
        return Err(format!("volume `{}` is of a kind the node in miniature does not know", volume.name));
    };
    let mut all = Vec::new();
    for source in source.sources.iter().flatten() {
        all.extend(projected(client, pod, facts, source).await?);
    }
    Ok((all, source.default_mode))
}

async fn projected(client: &Client, pod: &Pod, facts: &Facts, source: &VolumeProjection) -> Result<Files, String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(token) = &source.service_account_token {
        let (text, mode) = (request_token(client, pod, token).await?, token_mode(pod));
        return Ok(vec![(token.path.clone(), text, Some(mode))]);
    }
    if let Some(map) = &source.config_map {
        let entries = config_map(client, &namespace, &map.name, map.optional).await?;
        return Ok(chosen(&entries, map.items.as_ref()));
    }
    if let Some(reference) = &source.secret {
        let entries = secret(client, &namespace, &reference.name, reference.optional).await?;
        return Ok(chosen(&entries, reference.items.as_ref()));
    }
    match &source.downward_api {
        Some(source) => downward(pod, facts, source.items.as_ref()),
        None => Err("a projection the node in miniature does not know".to_owned()),
    }
}

/// A token of the pod's account that is good for this pod only.
async fn request_token(
    client: &Client,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
) -> Result<String, String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec {
        audiences: projection.audience.iter().cloned().collect(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(projection.expiration_seconds.unwrap_or(TOKEN_LIFE)),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api = Api::<ServiceAccount>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let made = api.create_token_request(account, &PostParams::default(), &request).await;
    let status = made.map_err(|error| error.to_string())?.status;
    Ok(status.ok_or("a token request without an answer")?.token)
}

/// Who may read a token: everybody in the pod, or the group that is given (KEP-2451; without what it says of one user).
fn token_mode(pod: &Pod) -> i32 {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    if context.is_some_and(|context| context.fs_group.is_some()) { 0o640 } else { FILE_MODE }
}

/// Entries as files; all of them, or those that are named.
fn chosen(entries: &BTreeMap<String, String>, items: Option<&Vec<KeyToPath>>) -> Files {
    match items {
        None => entries.iter().map(|(key, value)| (key.clone(), value.clone(), None)).collect(),
        Some(items) => {
            let file = |item: &KeyToPath| Some((item.path.clone(), entries.get(&item.key)?.clone(), item.mode));
            items.iter().filter_map(file).collect()
        }
    }
}

fn downward(pod: &Pod, facts: &Facts, items: Option<&Vec<DownwardAPIVolumeFile>>) -> Result<Files, String> {
    let file = |item: &DownwardAPIVolumeFile| {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => values::field(pod, facts, selector)?,
            (None, Some(selector)) => values::resource(pod, None, selector)?,
            (None, None) => return Err(format!("`{}` has no source", item.path)),
        };
        Ok((item.path.clone(), value, item.mode))
    };
    items.into_iter().flatten().map(file).collect()
}

fn write(path: &Path, content: &str, mode: i32) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode as u32))
}
