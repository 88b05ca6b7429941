//! How long the lists of a document may be. Far above use: they bound what one document can cost to check, here and by
//! the rules of its schema, whose cost a cluster's API server reckons from them.

pub(super) const ADDRESSES: usize = 16;
pub(super) const PORTS: usize = 256;
pub(super) const ENDPOINTS: usize = 1000;
pub(super) const ADVERTISED: usize = 256;
pub(super) const SELECTOR_LABELS: usize = 64;
pub(super) const RETRY_CONDITIONS: usize = 32;
/// All there are from 400 to 599.
pub(super) const STATUSES: usize = 200;
pub(super) const PARENTS: usize = 32;
pub(super) const HOSTNAMES: usize = 256;
pub(super) const BACKENDS: usize = 64;
/// Of HTTPRoutes, as in the Gateway API.
pub(super) const ROUTE_RULES: usize = 16;
pub(super) const ROUTE_MATCHES: usize = 64;
pub(super) const ROUTE_ENTRIES: usize = 16;
pub(super) const PATH_CHARACTERS: usize = 1024;
/// Characters of a duration.
pub(super) const DURATION_CHARACTERS: usize = 16;
