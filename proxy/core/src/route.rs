//! From a request to its route: compiled once per snapshot, read without allocating.
//!
//! Within a virtual host the first route that takes the request decides: by its path, and by its method, headers and
//! query where the route looks at them (see `conditions`). Whoever makes the table puts the more exact routes first.
//!
//! Hosts compare without port, letter case or the root's dot. The most exact virtual host decides alone, as in
//! Envoy: exact name, then the longest `*suffix`, then `*`; when none of its routes match, there is no route.
//! Exact names are one hash lookup, so that a table of a thousand hosts costs what a table of one does.

mod conditions;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{MissingCluster, PathMatch, RequestConditions, RouteSpec, RouteTableSpec};
use crate::names::{ClusterName, RouteName};
use crate::retry::RetryPolicy;
use crate::split::Split;

/// Longest host that can be found by exact name: DNS names end at 253 bytes, IPv6 literals well before.
const MAX_HOST: usize = 255;

/// A compiled route table; `T` is what a route leads to, usually a handle of its cluster.
#[derive(Debug)]
pub struct RouteTable<T> {
    name: RouteName,
    /// Routes of each virtual host; the other fields index it.
    hosts: Box<[Box<[Route<T>]>]>,
    exact: HashMap<Box<[u8]>, usize, BuildHasherDefault<HostHasher>>,
    /// What follows the `*`, longest first.
    suffixes: Vec<(Box<[u8]>, usize)>,
    any: Option<usize>,
}

/// One rule and where it leads.
#[derive(Debug)]
pub struct Route<T> {
    path: PathMatch,
    /// Boxed: most routes look at the path alone.
    conditions: Option<Box<RequestConditions>>,
    split: Split<T>,
    missing: MissingCluster,
    timeout: Option<Duration>,
    retry: Option<Arc<RetryPolicy>>,
    name: Option<Arc<str>>,
}

/// A request, as far as routes look at it.
pub trait Request {
    /// The Host header or `:authority` as received.
    fn authority(&self) -> &[u8];
    /// The request target without its query.
    fn path(&self) -> &[u8];
    /// What follows the `?`; `None` when there is none.
    fn query(&self) -> Option<&[u8]>;
    fn method(&self) -> &[u8];
    /// The values of the fields of a name, which is given in lower case, in their order.
    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]>;
}

/// Hashes hosts without a key: whoever asks cannot put anything into the table, so there is nothing to defend, and every
/// request pays.
#[derive(Debug, Default)]
struct HostHasher(u64);

impl HostHasher {
    /// Multiplies by 2^64 / phi, which spreads neighbours (Knuth, The Art of Computer Programming, section 6.4).
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for HostHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            self.mix(u64::from(byte));
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.mix(length as u64);
    }

    /// The upper half is mixed best; tables take the lower bits as well.
    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

impl<T> RouteTable<T> {
    /// Compiles a table. `resolve` gives the target of a cluster; `None` (a cluster nobody told us about) stays
    /// visible in [`Route::target`], so that the request fails with a reason instead of taking another route.
    /// When two virtual hosts name the same domain the first has it.
    pub fn compile(spec: &RouteTableSpec, mut resolve: impl FnMut(&ClusterName) -> Option<T>) -> Self {
        let mut table = Self {
            name: spec.name.clone(),
            hosts: Box::default(),
            exact: HashMap::default(),
            suffixes: Vec::new(),
            any: None,
        };
        for (index, virtual_host) in spec.virtual_hosts.iter().enumerate() {
            for domain in &virtual_host.domains {
                table.add_domain(domain, index);
            }
        }
        let hosts = spec.virtual_hosts.iter();
        table.hosts =
            hosts.map(|host| host.routes.iter().map(|route| Route::compile(route, &mut resolve)).collect()).collect();
        // Stable: of two equal suffixes the first stays first.
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    fn add_domain(&mut self, domain: &str, index: usize) {
        let host = host_of(domain.as_bytes()).to_ascii_lowercase();
        match host.strip_prefix(b"*") {
            Some(b"") => _ = self.any.get_or_insert(index),
            Some(suffix) => self.suffixes.push((suffix.into(), index)),
            None => _ = self.exact.entry(host.into()).or_insert(index),
        }
    }

    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// The route of a request.
    pub fn matches(&self, request: &impl Request) -> Option<&Route<T>> {
        let routes = &self.hosts[self.host(host_of(request.authority()))?];
        let path = request.path();
        routes.iter().find(|route| route.takes(path, request))
    }

    /// The virtual hosts: their domains, in no order of meaning, and their routes.
    pub fn hosts(&self) -> impl Iterator<Item = (Vec<String>, &[Route<T>])> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.hosts.iter().enumerate().map(move |(index, routes)| {
            let mut domains: Vec<String> =
                self.exact.iter().filter(|(_, at)| **at == index).map(|(name, _)| lossy(name)).collect();
            domains.sort_unstable();
            let suffixes = self.suffixes.iter().filter(|(_, at)| *at == index);
            domains.extend(suffixes.map(|(suffix, _)| format!("*{}", lossy(suffix))));
            domains.extend((self.any == Some(index)).then(|| "*".to_owned()));
            (domains, &**routes)
        })
    }

    /// All routes, in their order.
    pub fn routes(&self) -> impl Iterator<Item = &Route<T>> {
        self.hosts.iter().flatten()
    }

    /// The same table with what its clusters have become.
    #[must_use]
    pub fn resolved(&self, mut resolve: impl FnMut(&ClusterName) -> Option<T>) -> Self {
        let mut anew = |route: &Route<T>| Route {
            path: route.path.clone(),
            conditions: route.conditions.clone(),
            split: route.split.resolved(&mut resolve),
            missing: route.missing,
            timeout: route.timeout,
            retry: route.retry.clone(),
            name: route.name.clone(),
        };
        Self {
            name: self.name.clone(),
            hosts: self.hosts.iter().map(|routes| routes.iter().map(&mut anew).collect()).collect(),
            exact: self.exact.clone(),
            suffixes: self.suffixes.clone(),
            any: self.any,
        }
    }

    /// Where the routes lead, in their order.
    pub fn targets(&self) -> impl Iterator<Item = &T> {
        self.routes().flat_map(|route| route.split.shares()).filter_map(|(_, _, target)| target)
    }

    fn host(&self, host: &[u8]) -> Option<usize> {
        self.exact_host(host).or_else(|| self.wildcard_host(host)).or(self.any)
    }

    fn exact_host(&self, host: &[u8]) -> Option<usize> {
        if self.exact.is_empty() {
            return None;
        }
        let mut buffer = [0; MAX_HOST];
        let lower = buffer.get_mut(..host.len())?;
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.exact.get(&*lower).copied()
    }

    /// `*` stands for at least one byte: `*.example` does not take `.example`.
    fn wildcard_host(&self, host: &[u8]) -> Option<usize> {
        let takes =
            |suffix: &[u8]| host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix);
        self.suffixes.iter().find(|(suffix, _)| takes(suffix)).map(|(_, index)| *index)
    }
}

impl<T> Route<T> {
    fn compile(spec: &RouteSpec, resolve: &mut impl FnMut(&ClusterName) -> Option<T>) -> Self {
        Self {
            path: spec.path.clone(),
            conditions: (!spec.conditions.is_empty()).then(|| Box::new(spec.conditions.clone())),
            split: Split::compile(&spec.clusters, resolve),
            missing: spec.missing,
            timeout: spec.timeout,
            retry: spec.retry.clone(),
            name: spec.name.clone(),
        }
    }

    /// What people call it.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub fn path(&self) -> &PathMatch {
        &self.path
    }

    /// What else must be true of a request.
    pub fn conditions(&self) -> Option<&RequestConditions> {
        self.conditions.as_deref()
    }

    /// The clusters that share its requests. One that resolved to nothing is not known: answer as [`Self::missing`] says.
    pub fn split(&self) -> &Split<T> {
        &self.split
    }

    /// What a request gets whose cluster is not known.
    pub fn missing(&self) -> MissingCluster {
        self.missing
    }

    /// From the request's head to the response's last byte.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What is said of further tries.
    pub fn retry(&self) -> Option<&Arc<RetryPolicy>> {
        self.retry.as_ref()
    }

    fn takes(&self, path: &[u8], request: &impl Request) -> bool {
        let is_path = match &self.path {
            PathMatch::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            PathMatch::Exact(exact) => path == exact.as_bytes(),
            PathMatch::Segments(segments) => {
                let rest = path.strip_prefix(segments.as_bytes());
                rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
            }
            PathMatch::Pattern(pattern) => pattern.matches(path),
        };
        is_path && self.conditions.as_ref().is_none_or(|conditions| conditions::hold(conditions, request))
    }
}

/// The host within an authority: no port, no brackets, no dot of the root. What is malformed stays as it is and
/// matches nothing but `*`.
fn host_of(authority: &[u8]) -> &[u8] {
    if let Some(rest) = authority.strip_prefix(b"[") {
        return rest.iter().position(|&b| b == b']').map_or(authority, |end| &rest[..end]);
    }
    let mut colons = authority.iter().enumerate().filter(|(_, b)| **b == b':').map(|(at, _)| at);
    let host = match (colons.next(), colons.next()) {
        (Some(colon), None) => &authority[..colon],
        // None, or an IPv6 literal without brackets: the whole is the host.
        _ => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests;
