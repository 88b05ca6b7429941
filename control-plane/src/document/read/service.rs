//! `kind: Service`.

use std::collections::HashMap;

use crate::document::field::{Field, Reader};
use crate::document::{Backends, ExternalEndpoint, Protocol, ServicePort, ServiceSpec, limits, yaml};

const PROTOCOLS: [(&str, Protocol); 7] = [
    ("http", Protocol::Http),
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("tcp", Protocol::Tcp),
    ("tls", Protocol::Tls),
    ("auto", Protocol::Auto),
];

impl Reader {
    pub(super) fn service(&mut self, spec: &Field<'_>) -> Option<ServiceSpec> {
        let fields = self.fields(spec, &["addresses", "ports", "selector", "endpoints", "timeouts", "retries"])?;
        let addresses = fields.get("addresses").map_or(Some(Vec::new()), |field| self.addresses(&field, false));
        let ports = fields.required(self, "ports", "ports: [{port: 80}]").and_then(|field| self.service_ports(&field));
        let backends = match (fields.get("selector"), fields.get("endpoints")) {
            (Some(selector), None) => self.selector(&selector),
            (None, Some(endpoints)) => self.endpoints(&endpoints),
            (Some(_), Some(endpoints)) => {
                let what = "given beside `selector`; a service has exactly one of the two: remove one";
                self.problem(endpoints.at(), &endpoints.path, what.into());
                None
            }
            (None, None) => {
                let what = "neither `selector` nor `endpoints`; give `selector: {app: NAME}` for workloads of the mesh, or `endpoints: [{address: IP}]` for addresses outside";
                self.problem(spec.at(), &spec.path, what.into());
                None
            }
        };
        let timeouts = fields.get("timeouts").map_or(Some(None), |field| self.timeouts(&field).map(Some));
        let retries = fields.get("retries").map_or(Some(None), |field| self.retries(&field).map(Some));
        let ports = ports?;
        for name in ["timeouts", "retries"] {
            if let (Some(field), true) = (fields.get(name), ports.iter().all(|port| port.protocol == Protocol::Tcp)) {
                let what = "every port speaks tcp, which has no requests; remove it, or say the protocol of a port";
                self.problem(field.at(), &field.path, what.into());
            }
        }
        Some(ServiceSpec { addresses: addresses?, ports, timeouts: timeouts?, retries: retries?, backends: backends? })
    }

    fn service_ports(&mut self, field: &Field<'_>) -> Option<Vec<ServicePort>> {
        let items = self.some_items(field, "ports, such as `{port: 80}`")?;
        let items = self.bounded(field, items, limits::PORTS)?;
        let (mut numbers, mut names) = (HashMap::new(), HashMap::new());
        let mut ports = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["name", "port", "targetPort", "protocol", "appProtocol"]) else {
                continue;
            };
            let name = fields.get("name").map(|field| (self.label(&field), field));
            let port = fields.required(self, "port", "port: 80").and_then(|field| Some((self.port(&field)?, field)));
            let target = fields.get("targetPort").map(|field| self.port(&field));
            let app_protocol = fields.get("appProtocol").map(|field| self.text(&field));
            let protocol = match fields.get("protocol") {
                Some(field) => self.choice(&field, "protocol", &PROTOCOLS),
                None => Some(implied(app_protocol.flatten(), name.as_ref().and_then(|(name, _)| name.as_deref()))),
            };
            if let Some((number, field)) = &port {
                self.unique(&mut numbers, *number, field, &format!("port {number}"));
            }
            if let Some((Some(name), field)) = &name {
                self.unique(&mut names, name.clone(), field, &format!("the name `{name}`"));
            }
            let (Some((port, _)), Some(protocol)) = (port, protocol) else { continue };
            let Some(target_port) = target.unwrap_or(Some(port)) else { continue };
            ports.push(ServicePort { name: name.and_then(|(name, _)| name), port, target_port, protocol });
        }
        Some(ports)
    }

    fn selector(&mut self, field: &Field<'_>) -> Option<Backends> {
        let labels = self.labels(field)?;
        if matches!(&field.node.value, yaml::Value::Mapping(entries) if entries.is_empty()) {
            let what = "the selector is empty, which would select every workload; name a label, such as `{app: NAME}`";
            self.problem(field.at(), &field.path, what.into());
            return None;
        }
        if labels.len() > limits::SELECTOR_LABELS {
            let (found, most) = (labels.len(), limits::SELECTOR_LABELS);
            self.problem(field.at(), &field.path, format!("found {found} labels; at most {most} are allowed"));
            return None;
        }
        Some(Backends::Selector(labels))
    }

    fn endpoints(&mut self, field: &Field<'_>) -> Option<Backends> {
        let items = self.some_items(field, "endpoints, such as `{address: 192.0.2.1}`")?;
        let items = self.bounded(field, items, limits::ENDPOINTS)?;
        let mut seen = HashMap::new();
        let mut endpoints = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["address", "port"]) else { continue };
            let address = fields.required(self, "address", "address: 192.0.2.1").and_then(|field| self.address(&field));
            let port = fields.get("port").map(|field| self.port(&field));
            let (Some(address), Some(port)) = (address, port.map_or(Some(None), |port| port.map(Some))) else {
                continue;
            };
            self.unique(&mut seen, (address, port), item, "this endpoint");
            endpoints.push(ExternalEndpoint { address, port });
        }
        Some(Backends::Endpoints(endpoints))
    }
}

/// The protocol of a port that does not say `protocol`. An `appProtocol` nobody knows is somebody else's, and no error.
fn implied(app_protocol: Option<&str>, name: Option<&str>) -> Protocol {
    let by_name = || name.and_then(Protocol::of_port_name);
    app_protocol.and_then(Protocol::of_app_protocol).or_else(by_name).unwrap_or_default()
}
