//! Asks a proxy outside of clusters: through the control plane on this machine, which reaches proxies on others too. One that
//! cannot be asked so, because it or the control plane is of an earlier version, is asked at its admin endpoint.

use serde_json::Value;
use tonic::{Code, Status};
use weft_proto::weft::{LogLevelRequest, ProxyConfigurationRequest, StatusRequest};

use super::admin::{PATIENCE, admin_of, fetch, put};
use crate::cli::{Client, Failure, sources};

/// What the proxy of a workload runs with, in its own words.
pub(in crate::cli) async fn configuration(client: &mut Client, workload: &str) -> Result<Value, Failure> {
    let dump = match client.proxy_configuration(ProxyConfigurationRequest { workload: workload.to_owned() }).await {
        Ok(answer) => answer.into_inner().json.into_bytes(),
        Err(status) if is_for_the_endpoint(&status) => {
            let known = client.status(StatusRequest {}).await?.into_inner();
            let address = admin_of(workload, &known.proxies)?;
            let dump = fetch(address, "/config_dump", PATIENCE).await;
            dump.map_err(|error| unreachable(workload, address, &error))?.to_vec()
        }
        Err(status) => return Err(told(&status)),
    };
    serde_json::from_slice(&dump).map_err(|error| {
        Failure::new(format!("the proxy of {workload} sent what is not JSON ({error}); update it, or this program"))
    })
}

/// The level of the log of a proxy; with a level from now on that one.
pub(super) async fn log_level(client: &mut Client, workload: &str, level: Option<&str>) -> Result<String, Failure> {
    let request = LogLevelRequest {
        workload: workload.to_owned(),
        level: level.unwrap_or_default().to_owned(),
        author: sources::author(),
    };
    match client.log_level(request).await {
        Ok(answer) => Ok(answer.into_inner().level),
        Err(status) if is_for_the_endpoint(&status) => {
            let known = client.status(StatusRequest {}).await?.into_inner();
            let address = admin_of(workload, &known.proxies)?;
            let answer = match level {
                None => fetch(address, "/log-level", PATIENCE).await,
                Some(level) => put(address, &format!("/log-level/{level}"), PATIENCE).await,
            };
            let answer = answer.map_err(|error| unreachable(workload, address, &error))?;
            Ok(String::from_utf8_lossy(&answer).trim().to_owned())
        }
        Err(status) => Err(told(&status)),
    }
}

fn is_for_the_endpoint(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::Unimplemented)
}

/// These are about the proxy, whatever they would mean of the control plane.
fn told(status: &Status) -> Failure {
    match status.code() {
        Code::FailedPrecondition | Code::ResourceExhausted | Code::Unavailable if !status.message().is_empty() => {
            Failure::new(status.message())
        }
        Code::DeadlineExceeded => Failure::new(status.message()),
        _ => Failure::from(status.clone()),
    }
}

fn unreachable(workload: &str, address: &str, error: &str) -> Failure {
    Failure::new(format!(
        "cannot ask the proxy of {workload} at {address}: {error}; run this where that address can be reached"
    ))
}
