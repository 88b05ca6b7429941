//! What a pod's annotations say of its capture: for the init container and the node's plugin alike.

use std::str::FromStr;

use weft_proto::names::{HEALTH_PORT, annotation};

use super::rules::{Cidr, Rules};

/// More entries of one list than this are refused here already, as the kernel's rules refuse them later.
const LIST_LIMIT: usize = 1024;

/// An annotation that cannot be followed. Pods come from anybody: a message repeats no more than the start of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} is `{value:.120}`; allowed: {allowed}")]
pub struct AnnotationError {
    pub name: &'static str,
    pub value: String,
    pub allowed: &'static str,
}

/// The rules of a pod with these annotations. The health port is always left alone: the kubelet and scrapers, which are not
/// of the mesh, ask there. Lists are sorted, so that the same wishes always make the same rules.
///
/// # Errors
/// An annotation of ours that cannot be read; the rules together are judged when they are installed.
pub fn rules_of_pod<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Rules, AnnotationError> {
    let ports = |name| {
        let allowed = "TCP ports from 1 to 65535 with commas between, at most 1024";
        list(name, annotation(name), allowed, |port: &u16| *port != 0)
    };
    let networks = |name| {
        let allowed = "networks such as 10.0.0.0/8 or fd00::/8 with commas between, at most 1024";
        list(name, annotation(name), allowed, |_: &Cidr| true)
    };
    let users = |name| list(name, annotation(name), "user ids with commas between, at most 1024", |_: &u32| true);
    let mut inbound = ports(annotation::EXCLUDE_INBOUND_PORTS)?;
    inbound.retain(|port| *port != HEALTH_PORT);
    inbound.insert(0, HEALTH_PORT);
    Ok(Rules {
        exclude_inbound_ports: inbound,
        exclude_outbound_ports: ports(annotation::EXCLUDE_OUTBOUND_PORTS)?,
        exclude_cidrs: networks(annotation::EXCLUDE_OUTBOUND_CIDRS)?,
        include_cidrs: networks(annotation::INCLUDE_OUTBOUND_CIDRS)?,
        exclude_uids: users(annotation::EXCLUDE_UIDS)?,
        ..Rules::default()
    })
}

/// An empty text is an empty list; an empty entry is a slip.
fn list<T: FromStr + Ord>(
    name: &'static str,
    text: Option<&str>,
    allowed: &'static str,
    is_good: impl Fn(&T) -> bool,
) -> Result<Vec<T>, AnnotationError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    let refused = || AnnotationError { name, value: text.to_owned(), allowed };
    let read = |entry: &str| entry.trim().parse().ok().filter(|value| is_good(value));
    let mut list: Vec<T> = text.split(',').map(read).collect::<Option<_>>().ok_or_else(refused)?;
    list.sort();
    list.dedup();
    if list.len() > LIST_LIMIT { Err(refused()) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_annotation_reaches_its_field_sorted_and_once() {
        assert_eq!(rules_of_pod(|_| None), Ok(Rules { exclude_inbound_ports: vec![HEALTH_PORT], ..Rules::default() }));
        let rules = rules_of_pod(|name| match name {
            annotation::EXCLUDE_INBOUND_PORTS => Some("9090, 22,15020"),
            annotation::EXCLUDE_OUTBOUND_PORTS => Some("5432"),
            annotation::EXCLUDE_OUTBOUND_CIDRS => Some("192.168.0.1/16,fd00::/8,192.168.0.0/16"),
            annotation::INCLUDE_OUTBOUND_CIDRS => Some(" "),
            annotation::EXCLUDE_UIDS => Some("65534,0"),
            _ => None,
        });
        let expected = Rules {
            exclude_inbound_ports: vec![15020, 22, 9090],
            exclude_outbound_ports: vec![5432],
            exclude_cidrs: vec!["192.168.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            include_cidrs: Vec::new(),
            exclude_uids: vec![0, 65534],
            ..Rules::default()
        };
        assert_eq!(rules, Ok(expected));
        let rules = rules_of_pod(|name| (name == annotation::INCLUDE_OUTBOUND_CIDRS).then_some("10.96.0.0/12"));
        assert_eq!(rules.unwrap().include_cidrs, ["10.96.0.0/12".parse().unwrap()]);
    }

    #[test]
    fn each_annotation_is_refused_with_its_name_its_value_and_what_is_allowed() {
        let many = (1..=1025).map(|uid| uid.to_string()).collect::<Vec<_>>().join(",");
        for (name, value, allowed) in [
            (annotation::EXCLUDE_INBOUND_PORTS, "80,", "1 to 65535"),
            (annotation::EXCLUDE_INBOUND_PORTS, "0", "1 to 65535"),
            (annotation::EXCLUDE_OUTBOUND_PORTS, "65536", "1 to 65535"),
            (annotation::EXCLUDE_OUTBOUND_PORTS, "80,http", "1 to 65535"),
            (annotation::EXCLUDE_OUTBOUND_CIDRS, "10.0.0.0/33", "10.0.0.0/8"),
            (annotation::INCLUDE_OUTBOUND_CIDRS, "*", "10.0.0.0/8"),
            (annotation::EXCLUDE_UIDS, "-1", "user ids"),
            (annotation::EXCLUDE_UIDS, "root", "user ids"),
            (annotation::EXCLUDE_UIDS, &many, "at most 1024"),
        ] {
            let text = rules_of_pod(|asked| (asked == name).then_some(value)).unwrap_err().to_string();
            let start = format!("annotation {name} is `{}", value.chars().take(20).collect::<String>());
            assert!(text.starts_with(&start) && text.contains(allowed) && text.len() < 300, "{text}");
        }
    }
}
