//! What a replica knows of its own proxies, for the one that writes statuses.
//!
//! Revisions count from 1 in each replica, so a report says of each object since which revision of its own a generation is in
//! force; held against the revisions its proxies have answered, that is how far they have come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Inputs;
use super::observed::ObjectKey;
use super::proxies::{Group, Standing};

/// Of one replica. Objects are those of custom kinds and of the Gateway API, which are few beside the pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The replica's name: its pod's.
    pub(super) replica: String,
    pub(super) group: Group,
}

impl Inputs {
    /// What this replica knows now.
    pub fn report(&self, replica: &str) -> Report {
        let mut group = Group::new(&(self.proxies)());
        let (snapshot, findings) = (self.snapshots.borrow().clone(), self.findings.borrow().clone());
        let readings = self.readings.borrow().clone();
        let objects: BTreeMap<String, Standing> = readings
            .iter()
            .filter(|(_, reading)| reading.problems.is_empty())
            .filter_map(|((resource, _), reading)| {
                let since = snapshot.documents.get(&reading.key)?.revision;
                let id = ObjectKey { api_version: resource.api_version.into(), key: reading.key.clone() };
                let standing = Standing { generation: reading.generation, since };
                (since <= findings.revision).then(|| (id.to_string(), standing))
            })
            .collect();
        group.objects = Some(objects);
        Report { replica: replica.to_owned(), group }
    }
}
