//! What a pod's annotations say of its capture: for the init container and the node's plugin alike.

use std::str::FromStr;

use weft_proto::names::{HEALTH_PORT, annotation};

use super::rules::{Cidr, Rules};

/// An annotation that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}: `{entry}` is none of the {expected}, which stand with commas between")]
pub struct AnnotationError {
    pub name: &'static str,
    pub entry: String,
    pub expected: &'static str,
}

/// The rules of a pod with these annotations. The health port is always left alone: the kubelet and scrapers, which are not
/// of the mesh, ask there.
///
/// # Errors
/// An annotation of ours that cannot be read; the rules themselves are judged when they are installed.
pub fn rules_of_pod<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Rules, AnnotationError> {
    let ports = |name| list(name, annotation(name), "TCP ports from 1 to 65535", |port: &u16| *port != 0);
    let networks = |name| list(name, annotation(name), "networks, such as 10.0.0.0/8 or fd00::/8", |_: &Cidr| true);
    let mut inbound = ports(annotation::EXCLUDE_INBOUND_PORTS)?;
    if !inbound.contains(&HEALTH_PORT) {
        inbound.push(HEALTH_PORT);
    }
    Ok(Rules {
        exclude_inbound_ports: inbound,
        exclude_outbound_ports: ports(annotation::EXCLUDE_OUTBOUND_PORTS)?,
        exclude_cidrs: networks(annotation::EXCLUDE_OUTBOUND_CIDRS)?,
        include_cidrs: networks(annotation::INCLUDE_OUTBOUND_CIDRS)?,
        exclude_uids: {
            let name = annotation::EXCLUDE_UIDS;
            list(name, annotation(name), "user ids", |_: &u32| true)?
        },
        ..Rules::default()
    })
}

fn list<T: FromStr>(
    name: &'static str,
    text: Option<&str>,
    expected: &'static str,
    is_good: impl Fn(&T) -> bool,
) -> Result<Vec<T>, AnnotationError> {
    let entries = text.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let read = |entry: &str| entry.parse().ok().filter(|value| is_good(value));
    entries
        .map(|entry| read(entry).ok_or_else(|| AnnotationError { name, entry: entry.to_owned(), expected }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_annotation_reaches_its_field() {
        assert_eq!(rules_of_pod(|_| None), Ok(Rules { exclude_inbound_ports: vec![HEALTH_PORT], ..Rules::default() }));
        let rules = rules_of_pod(|name| match name {
            annotation::EXCLUDE_INBOUND_PORTS => Some("9000, 15020"),
            annotation::EXCLUDE_OUTBOUND_PORTS => Some("5432"),
            annotation::EXCLUDE_OUTBOUND_CIDRS => Some("192.0.2.0/24,"),
            annotation::INCLUDE_OUTBOUND_CIDRS => Some("10.96.0.0/12,fd00::/8"),
            annotation::EXCLUDE_UIDS => Some("33"),
            _ => None,
        });
        let expected = Rules {
            exclude_inbound_ports: vec![9000, 15020],
            exclude_outbound_ports: vec![5432],
            exclude_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            include_cidrs: vec!["10.96.0.0/12".parse().unwrap(), "fd00::/8".parse().unwrap()],
            exclude_uids: vec![33],
            ..Rules::default()
        };
        assert_eq!(rules, Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, text, entry) in [
            (annotation::EXCLUDE_INBOUND_PORTS, "80,http", "http"),
            (annotation::EXCLUDE_OUTBOUND_PORTS, "0", "0"),
            (annotation::EXCLUDE_OUTBOUND_CIDRS, "10.0.0.0/33", "10.0.0.0/33"),
            (annotation::EXCLUDE_UIDS, "-1", "-1"),
        ] {
            let error = rules_of_pod(|asked| (asked == name).then_some(text)).unwrap_err();
            assert_eq!((error.name, error.entry.as_str()), (name, entry));
        }
    }
}
