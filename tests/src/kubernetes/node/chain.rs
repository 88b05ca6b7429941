//! A pod's network as a container runtime has it made: by the plugins of the node's network configuration, one after the
//! other (CNI specification 1.1). The one that makes the interface is this harness; all others are programs of the node.

use std::path::{Path, PathBuf};
use std::process::Output;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::process::Command;

use super::sandbox::{Sandbox, fed};
use crate::process::system;

/// Directories of a node, below its root.
pub(super) const CONFIGURATIONS: &str = "etc/cni/net.d";
pub(super) const BINARIES: &str = "opt/cni/bin";
/// The harness's own plugin.
const OWN: &str = "miniature";
/// What a plugin may ask to be told: annotations of the pod, as containerd hands them over.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const INTERFACE: &str = "eth0";

/// The network configuration of a node as its installation leaves it, in a form that no program would write.
pub const CONFIGURATION: &str = r#"{"cniVersion": "1.0.0", "name": "miniature",
    "plugins": [
        { "type": "miniature",   "mtu": 1500 }
    ]
}"#;

/// The network of a pod, and what it was made by: that also takes it apart.
#[derive(Debug)]
pub(super) struct Network {
    list: Value,
    binaries: PathBuf,
    result: Value,
}

impl Network {
    /// Has all plugins add a pod to its network. Where one cannot, all of them take it out again.
    pub(super) async fn make(host: &Path, pod: &Pod, sandbox: &Sandbox) -> Result<Self, String> {
        let mut network = Self { list: configuration(host)?, binaries: host.join(BINARIES), result: Value::Null };
        match network.add(pod, sandbox).await {
            Ok(()) => Ok(network),
            Err(error) => {
                let _ = network.delete(pod, sandbox).await;
                Err(error)
            }
        }
    }

    async fn add(&mut self, pod: &Pod, sandbox: &Sandbox) -> Result<(), String> {
        for plugin in self.plugins() {
            if plugin["type"] == OWN {
                sandbox.join().await?;
                self.result = json!({
                    "cniVersion": self.list["cniVersion"],
                    "interfaces": [{"name": INTERFACE, "sandbox": sandbox.network()}],
                    "ips": [{"address": format!("{}/32", sandbox.address), "interface": 0}],
                    "dns": {},
                });
                continue;
            }
            let output = self.call("ADD", &plugin, pod, sandbox).await?;
            self.result = serde_json::from_slice(&output.stdout)
                .map_err(|error| format!("plugin {}: its result cannot be read: {error}", plugin["type"]))?;
        }
        Ok(())
    }

    /// Has all plugins take a pod out, the last one first.
    pub(super) async fn delete(&self, pod: &Pod, sandbox: &Sandbox) -> Result<(), String> {
        for plugin in self.plugins().into_iter().rev().filter(|plugin| plugin["type"] != OWN) {
            self.call("DEL", &plugin, pod, sandbox).await?;
        }
        Ok(())
    }

    fn plugins(&self) -> Vec<Value> {
        self.list["plugins"].as_array().cloned().unwrap_or_default()
    }

    async fn call(&self, what: &str, plugin: &Value, pod: &Pod, sandbox: &Sandbox) -> Result<Output, String> {
        let name = plugin["type"].as_str().unwrap_or_default();
        let mut input = plugin.clone();
        for field in ["cniVersion", "name"] {
            input[field] = self.list[field].clone();
        }
        if !self.result.is_null() {
            input["prevResult"] = self.result.clone();
        }
        if plugin["capabilities"][ANNOTATIONS] == true {
            input["runtimeConfig"] = json!({ANNOTATIONS: pod.annotations()});
        }
        let program = self.binaries.join(name);
        let mut command = Command::from(system(&program.to_string_lossy()));
        let (namespace, pod_name, uid) =
            (pod.namespace().unwrap_or_default(), pod.name_any(), pod.uid().unwrap_or_default());
        command
            .env("CNI_COMMAND", what)
            .env("CNI_CONTAINERID", &uid)
            .env("CNI_NETNS", sandbox.network())
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", &self.binaries)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod_name};\
                     K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
                ),
            );
        let output = fed(command, input.to_string().as_bytes()).await?;
        if output.status.success() {
            return Ok(output);
        }
        let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "plugin type={name} failed ({}): code {}: {} {stderr}",
            what.to_lowercase(),
            error["code"],
            error["msg"]
        ))
    }
}

/// The first list of plugins by name.
fn configuration(host: &Path) -> Result<Value, String> {
    let directory = host.join(CONFIGURATIONS);
    let files = std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let lists =
        files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|it| it == "conflist"));
    let Some(first) = lists.min() else {
        return Err("network is not ready: cni plugin not initialized".to_owned());
    };
    let text = std::fs::read_to_string(&first).map_err(|error| format!("{}: {error}", first.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", first.display()))
}
