//! What a pod has that the proxy needs for itself.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use weft_proxy::capture::Rules;

use super::error::{InjectError, shortened};
use crate::kubernetes::names;

/// What the proxy uses a port for.
pub(super) fn proxy_port(port: u16) -> Option<&'static str> {
    let capture = Rules::default();
    match port {
        names::HEALTH_PORT => Some("for probes and metrics"),
        names::ADMIN_PORT => Some("for administration"),
        _ if port == capture.outbound_port => Some("for outbound connections"),
        _ if port == capture.inbound_port => Some("for inbound connections"),
        _ => None,
    }
}

/// Refuses a pod whose own containers take the proxy's ports or its user.
pub(super) fn check<'a>(
    spec: &PodSpec,
    containers: impl IntoIterator<Item = &'a Container>,
) -> Result<(), InjectError> {
    let user_of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    for container in containers {
        let place = || format!("container {}", shortened(&container.name));
        for port in container.ports.as_deref().unwrap_or_default() {
            // Capture and our listeners are TCP alone.
            if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
                continue;
            }
            let number = u16::try_from(port.container_port).ok();
            if let Some((port, purpose)) = number.and_then(|port| proxy_port(port).map(|purpose| (port, purpose))) {
                return Err(InjectError::PortTaken { place: place(), port, purpose });
            }
        }
        let user = container.security_context.as_ref().and_then(|context| context.run_as_user).or(user_of_pod);
        if user == Some(names::PROXY_UID) {
            return Err(InjectError::UserTaken { place: place(), uid: names::PROXY_UID });
        }
    }
    Ok(())
}
