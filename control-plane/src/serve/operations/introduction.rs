//! What a proxy says of itself before it is asked anything.

use tonic::Status;
use weft_core::names::SpiffeId;
use weft_proto::weft::Introduction;

use crate::world::WorkloadKey;

/// Of a name in Kubernetes.
const LONGEST_NAME: usize = 253;
/// Of versions and architectures.
const LONGEST_WORD: usize = 64;
/// Digits of SHA-256; none where the proxy could not read its program.
const DIGITS: usize = 64;

/// The workload of an introduction, in the certificate's namespace: nobody's word but the certificate's counts for that.
pub(super) fn workload(introduction: &Introduction, identity: &SpiffeId) -> Result<WorkloadKey, Status> {
    let Introduction { workload, version, digest, architecture, replaceable: _ } = introduction;
    let refused = |what: &str| {
        Err(Status::invalid_argument(format!("the introduction's {what}; send one of weft.v1.Introduction first")))
    };
    let is_word = |text: &str, longest| text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic());
    if workload.is_empty() || workload.contains('/') || !is_word(workload, LONGEST_NAME) {
        return refused("workload is not a name");
    }
    if !is_word(version, LONGEST_WORD) || !is_word(architecture, LONGEST_WORD) {
        return refused("version or architecture is not a word");
    }
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !digest.is_empty() && (digest.len() != DIGITS || !digest.bytes().all(is_digit)) {
        return refused("digest is not SHA-256 in lower-case hexadecimal digits");
    }
    Ok(WorkloadKey::new(identity.namespace(), workload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_is_of_the_certificates_namespace_and_in_order() {
        let identity = SpiffeId::workload("shop.local", "shop", "orders");
        let good = Introduction {
            workload: "orders-1".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "0f".repeat(32),
            architecture: "x86_64".to_owned(),
            replaceable: false,
        };
        assert_eq!(workload(&good, &identity).unwrap(), WorkloadKey::new("shop", "orders-1"));
        let unread = Introduction { digest: String::new(), ..good.clone() };
        assert!(workload(&unread, &identity).is_ok());
        for bad in [
            Introduction { workload: String::new(), ..good.clone() },
            Introduction { workload: "other/orders-1".to_owned(), ..good.clone() },
            Introduction { workload: "x".repeat(254), ..good.clone() },
            Introduction { workload: "orders\u{1b}[2J".to_owned(), ..good.clone() },
            Introduction { version: "v".repeat(65), ..good.clone() },
            Introduction { architecture: "x86 64".to_owned(), ..good.clone() },
            Introduction { digest: "0F".repeat(32), ..good.clone() },
            Introduction { digest: "0f".repeat(31), ..good.clone() },
        ] {
            assert!(workload(&bad, &identity).is_err(), "{bad:?}");
        }
    }
}
