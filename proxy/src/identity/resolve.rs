//! The control plane's name to its addresses: by the system's resolver, and by the search list where that leaves it out.
//!
//! musl, which the static programs of the images are linked with, asks for a name that has `ndots` dots or more only as it
//! stands, where glibc goes on with the search list. Pods commonly set `ndots` to 1 or 2, and a Service's name without the
//! cluster's domain, `weft-control-plane.weft-system.svc`, would then not be found.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;

/// What the resolver goes by.
const CONFIGURATION: &str = "/etc/resolv.conf";
/// As many as Kubernetes lets a pod have.
const MOST_DOMAINS: usize = 32;

/// The addresses of `HOST:PORT`. Whoever waits sets the limit.
///
/// # Errors
/// The system's, for the name as it stands.
pub(super) async fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    let refusal = match lookup_host(name).await {
        Ok(found) => return Ok(found.collect()),
        Err(error) => error,
    };
    let configuration = tokio::fs::read_to_string(CONFIGURATION).await.unwrap_or_default();
    for longer in in_domains(name, &configuration) {
        if let Ok(found) = lookup_host(longer).await {
            return Ok(found.collect());
        }
    }
    Err(refusal)
}

/// `HOST:PORT` in each domain of the search list, complete with the last dot, so that nothing is put behind it again.
fn in_domains(name: &str, configuration: &str) -> Vec<String> {
    let Some((host, port)) = name.rsplit_once(':') else { return Vec::new() };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if host.ends_with('.') || bare.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    let domains = search_list(configuration).map(|domain| domain.trim_matches('.')).filter(|domain| !domain.is_empty());
    domains.take(MOST_DOMAINS).map(|domain| format!("{host}.{domain}.:{port}")).collect()
}

/// The last line that says one counts.
fn search_list(configuration: &str) -> impl Iterator<Item = &str> {
    let mut lists = configuration.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    lists.next_back().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_A_POD: &str = "\
search ignored.example
nameserver 10.96.0.10
search shop.svc.cluster.local svc.cluster.local. cluster.local .
options ndots:2
";

    #[test]
    fn a_name_is_tried_in_each_domain_of_the_last_search_list() {
        assert_eq!(
            in_domains("weft-control-plane.weft-system.svc:15010", OF_A_POD),
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                .map(|domain| format!("weft-control-plane.weft-system.svc.{domain}.:15010"))
        );
        assert_eq!(in_domains("a:1", "domain corp.example\n"), ["a.corp.example.:1"]);
    }

    #[test]
    fn addresses_and_complete_names_are_in_no_domain() {
        for name in ["10.0.0.1:15010", "[fd00::1]:15010", "control.example.:15010", "no port"] {
            assert_eq!(in_domains(name, OF_A_POD), Vec::<String>::new(), "{name}");
        }
        assert_eq!(in_domains("a:1", "nameserver 10.96.0.10\n"), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_the_system_refuses_is_refused_as_it_does() {
        assert_eq!(addresses("no port").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(addresses("127.0.0.1:7").await.unwrap(), ["127.0.0.1:7".parse().unwrap()]);
    }
}
