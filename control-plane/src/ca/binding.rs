//! The one workload a certificate was given to, in its subject: `UID=orders-7d9f8-x2x4p`.
//!
//! The SPIFFE identity is the service account's, and there may be no second URI. A DNS name would do harm: a workload may
//! be called `control-plane.weft` or like the webhooks' Service, and its certificate would be a server's. Nobody
//! verifies a server by its subject, and the attribute `userId` (RFC 4519, 2.39) holds 256 characters where the common
//! name holds 64: a pod's name may have 253.

use rcgen::{DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// `userId`, 0.9.2342.19200300.100.1.1.
const USER_ID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];
const USER_ID_PARSED: Oid<'static> = oid!(0.9.2342.19200300.100.1.1);

/// The subject of a certificate for `workload`; empty for one that any workload of the identity may use.
pub(super) fn subject(workload: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(workload) = workload {
        subject.push(DnType::CustomDnType(USER_ID.to_vec()), workload);
    }
    subject
}

/// The workload a certificate of ours is for, if it is for one.
pub(super) fn workload_of(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let name = parsed.subject().iter_by_oid(&USER_ID_PARSED).next()?;
    // Not text: then it names no workload there is, which is nobody rather than anybody.
    Some(name.as_str().unwrap_or_default().to_owned())
}
