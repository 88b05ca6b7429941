//! Virtual addresses for services that give none.
//!
//! The first choice is a hash of the service's name, so that a mesh rebuilt from the same documents gets the same
//! addresses; a taken one sends the search to the next. What was given once stays in the document.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::document::Key;

/// 10.96.0.0/16, which Kubernetes clusters use for the same purpose. Both networks stand in [`weft_proto::names`] too, where
/// proxies read them.
const NETWORK_V4: u32 = 0x0a60_0000;
/// Without the network's own and the last address.
const HOSTS_V4: u32 = 0xffff - 1;
/// `fd57:0:0:1::/64`.
const NETWORK_V6: u128 = 0xfd57_0000_0000_0001 << 64;

/// A free IPv4 and a free IPv6 address for a service; `None` when the IPv4 range is used up.
pub(super) fn allocate(key: &Key, taken: &HashMap<IpAddr, Key>) -> Option<[IpAddr; 2]> {
    let hash = fnv1a(&format!("{}/{}", key.namespace, key.name));
    let v4 = (0..HOSTS_V4)
        .map(|step| NETWORK_V4 + 1 + (hash as u32 % HOSTS_V4 + step) % HOSTS_V4)
        .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        .find(|address| !taken.contains_key(address))?;
    // The range is larger than any number of services: the search ends.
    let v6 = (0..=u64::MAX)
        .map(|step| hash.wrapping_add(step))
        .filter(|host| *host != 0)
        .map(|host| IpAddr::V6(Ipv6Addr::from_bits(NETWORK_V6 | u128::from(host))))
        .find(|address| !taken.contains_key(address))?;
    Some([v4, v6])
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): fixed for all time, unlike the standard library's hashers.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;

    #[test]
    fn a_service_gets_the_same_addresses_in_every_mesh() {
        let key = Key::new(Kind::Service, "default", "orders");
        let given = allocate(&key, &HashMap::new()).unwrap();
        // Written down: a change of the algorithm would move services of meshes rebuilt from their files.
        assert_eq!(given.map(|address| address.to_string()), ["10.96.58.169", "fd57::1:b9f8:ad2e:c3d1:b302"]);
    }

    #[test]
    fn a_taken_address_is_passed_over_until_none_is_left() {
        let owner = Key::new(Kind::Service, "default", "owner");
        let last: IpAddr = "10.96.0.1".parse().unwrap();
        let all = (1..=HOSTS_V4).map(|host| IpAddr::V4(Ipv4Addr::from_bits(NETWORK_V4 + host)));
        let mut taken: HashMap<IpAddr, Key> =
            all.filter(|address| *address != last).map(|address| (address, owner.clone())).collect();
        let orders = Key::new(Kind::Service, "default", "orders");
        let [v4, v6] = allocate(&orders, &taken).unwrap();
        assert_eq!(v4, last);
        taken.insert(v6, owner.clone());
        assert_ne!(allocate(&orders, &taken).unwrap()[1], v6);
        taken.insert(last, owner);
        assert_eq!(allocate(&orders, &taken), None);
    }

    #[test]
    fn the_networks_own_addresses_are_never_given() {
        let networks: weft_proxy::capture::Networks = weft_proto::names::VIRTUAL_NETWORKS.join(",").parse().unwrap();
        for index in 0..100_000 {
            let key = Key::new(Kind::Service, "default", &format!("s{index}"));
            let [v4, v6] = allocate(&key, &HashMap::new()).unwrap().map(|address| address.to_string());
            assert!(v4.starts_with("10.96.") && v4 != "10.96.0.0" && v4 != "10.96.255.255", "{v4}");
            assert!(v6.starts_with("fd57:0:0:1:") || v6.starts_with("fd57::1:"), "{v6}");
            // Proxies refuse what goes there and to no service.
            let known = [&v4, &v6].map(|address| networks.contains(address.parse().unwrap()));
            assert_eq!(known, [true, true], "{v4} {v6}");
        }
    }
}
