//! Everything of ours in a cluster: rendered, applied, removed, checked.
//!
//! | module | does |
//! |---|---|
//! | [`values`] | what can be said about an installation; every default with its reason |
//! | [`template`] | manifests with holes, filled by values or printed for Helm |
//! | [`manifests`] | the objects themselves, in the order they are applied |
//! | [`chart`] | the Helm charts, from the same templates |
//! | [`cluster`] | objects of an API server, as JSON |
//! | [`plan`] | what an installation would change, by the server's own word |
//! | [`apply`] | puts the plan in force and waits until it runs |
//! | [`uninstall`] | takes all of it away again |
//! | [`check`] | what will go wrong, before it does |
//!
//! There is one source: [`manifests::templates`]. `weft install --print` fills its holes, and the chart is the same tree
//! with Helm's own words in the holes, so that both can only differ where a test says so.

pub mod apply;
pub mod chart;
pub mod check;
pub mod cluster;
pub mod manifests;
pub mod plan;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
pub mod uninstall;
pub mod values;

pub use cluster::{Cluster, ClusterError};
pub use manifests::{custom_resource_definitions, manifests};
pub use values::{Values, ValuesError};
