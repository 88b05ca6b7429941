//! `kind: Workload`.

use std::collections::HashMap;

use crate::document::field::{Field, Reader};
use crate::document::{Advertised, DEFAULT_ACCOUNT, WorkloadSpec, WorkloadState, limits};

const STATES: [(&str, WorkloadState); 3] =
    [("ready", WorkloadState::Ready), ("draining", WorkloadState::Draining), ("unhealthy", WorkloadState::Unhealthy)];

impl Reader {
    pub(super) fn workload(&mut self, spec: &Field<'_>) -> Option<WorkloadSpec> {
        let fields = self.fields(spec, &["addresses", "serviceAccount", "state", "advertise"])?;
        let addresses =
            fields.required(self, "addresses", "addresses: [10.97.0.5]").and_then(|field| self.addresses(&field, true));
        let account = fields
            .get("serviceAccount")
            .map_or_else(|| Some(DEFAULT_ACCOUNT.to_owned()), |field| self.subdomain(&field));
        let state =
            fields.get("state").map_or(Some(WorkloadState::default()), |field| self.choice(&field, "state", &STATES));
        let advertise = fields.get("advertise").map_or(Some(Vec::new()), |field| self.advertise(&field));
        Some(WorkloadSpec {
            addresses: addresses?,
            service_account: account?,
            state: state?,
            advertise: advertise?,
            captured: None,
        })
    }

    fn advertise(&mut self, field: &Field<'_>) -> Option<Vec<Advertised>> {
        let items = self.items(field, "`{port: 8080, at: \"ADDRESS:PORT\"}`")?;
        let items = self.bounded(field, items, limits::ADVERTISED)?;
        let mut seen = HashMap::new();
        let mut advertised = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["port", "at"]) else { continue };
            let port = fields.required(self, "port", "port: 8080").and_then(|field| Some((self.port(&field)?, field)));
            let at =
                fields.required(self, "at", "at: \"127.0.0.1:34567\"").and_then(|field| self.socket_address(&field));
            let (Some((port, field)), Some(at)) = (port, at) else { continue };
            self.unique(&mut seen, port, &field, &format!("port {port}"));
            advertised.push(Advertised { port, at });
        }
        Some(advertised)
    }
}
