//! Root and certificates, without a network.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use weft_core::names::SpiffeId;
use weft_proxy::clock;
use weft_proxy::tls::identity_of;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::ca::{Authority, AuthorityOptions, CaError, SignError};

fn open(data: &Path) -> Result<Authority, CaError> {
    Authority::open(data, &AuthorityOptions::default(), clock::wall())
}

fn options(trust_domain: &str) -> AuthorityOptions {
    AuthorityOptions { trust_domain: Some(trust_domain.to_owned()), ..AuthorityOptions::default() }
}

fn request(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root of everything");
    params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn orders(authority: &Authority) -> SpiffeId {
    SpiffeId::workload(authority.trust_domain(), "default", "orders")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_first_start_makes_a_private_root_and_a_public_bundle() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    assert_eq!(authority.trust_domain(), "weft.local");
    for (file, expected) in [("ca", 0o700), ("ca/root.key", 0o600), ("ca/root.pem", 0o644), ("bundle.pem", 0o644)] {
        assert_eq!(mode(&data.path().join(file)), expected, "{file}");
    }
    let bundle = fs::read_to_string(data.path().join("bundle.pem")).unwrap();
    assert!(bundle.starts_with("-----BEGIN CERTIFICATE-----") && !bundle.contains("PRIVATE"), "{bundle}");
}

#[test]
fn a_restart_finds_the_same_root_and_trust_domain() {
    let data = tempfile::tempdir().unwrap();
    let first = Authority::open(data.path(), &options("shop.example"), clock::wall()).unwrap();
    fs::remove_file(data.path().join("bundle.pem")).unwrap();
    let second = open(data.path()).unwrap();
    assert_eq!(second.trust_domain(), "shop.example");
    assert_eq!(second.bundle(), first.bundle());
    assert!(data.path().join("bundle.pem").exists(), "the bundle was not written again");
}

#[test]
fn another_trust_domain_for_an_existing_root_is_refused() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).unwrap();
    let error = Authority::open(data.path(), &options("shop.example"), clock::wall()).unwrap_err();
    assert!(matches!(error, CaError::OtherTrustDomain { .. }), "{error}");
}

#[test]
fn a_trust_domain_that_cannot_stand_in_an_identity_is_refused() {
    for name in ["", "Shop", "shop.local/ns", "shop local", "shop:1", &"a".repeat(256)] {
        let data = tempfile::tempdir().unwrap();
        let error = Authority::open(data.path(), &options(name), clock::wall()).unwrap_err();
        assert!(matches!(error, CaError::TrustDomain(_)), "`{name}`: {error}");
        assert!(!data.path().join("ca/root.key").exists());
    }
}

#[test]
fn a_key_others_can_read_is_refused_with_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).unwrap();
    let key = data.path().join("ca/root.key");
    for mode in [0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let error = open(data.path()).unwrap_err().to_string();
        assert!(error.contains("root.key") && error.contains("chmod go="), "{mode:o}: {error}");
    }
    fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    open(data.path()).unwrap();
}

#[test]
fn a_directory_others_can_write_is_refused() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).unwrap();
    fs::set_permissions(data.path().join("ca"), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(open(data.path()).unwrap_err(), CaError::Exposed { .. }));
}

#[test]
fn a_lost_half_of_the_root_is_named_and_nothing_is_overwritten() {
    for (lost, kept) in [("ca/root.key", "ca/root.pem"), ("ca/root.pem", "ca/root.key")] {
        let data = tempfile::tempdir().unwrap();
        open(data.path()).unwrap();
        let before = fs::read(data.path().join(kept)).unwrap();
        fs::remove_file(data.path().join(lost)).unwrap();
        let error = open(data.path()).unwrap_err().to_string();
        assert!(error.contains(lost) && error.contains("restore"), "{error}");
        assert_eq!(fs::read(data.path().join(kept)).unwrap(), before);
        assert!(!data.path().join(lost).exists());
    }
}

#[test]
fn an_interrupted_first_start_begins_again() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).unwrap();
    for file in ["ca/root.pem", "bundle.pem"] {
        fs::remove_file(data.path().join(file)).unwrap();
    }
    fs::write(data.path().join("ca/root.key.new"), "half a k").unwrap();
    open(data.path()).unwrap();
}

#[test]
fn a_key_of_another_root_is_refused() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(data.path()).unwrap();
    open(other.path()).unwrap();
    fs::copy(other.path().join("ca/root.pem"), data.path().join("ca/root.pem")).unwrap();
    assert!(matches!(open(data.path()).unwrap_err(), CaError::Unusable { .. }));
}

#[test]
fn of_a_request_only_the_key_is_used() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let wish = "spiffe://weft.local/ns/weft-system/sa/control-plane";
    let now = clock::wall();
    let issued = authority.sign(&request(&key, &[wish]), &orders(&authority), None, now).unwrap();

    assert_eq!(identity_of(&issued.chain[0]).unwrap(), orders(&authority));
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.public_key().subject_public_key.as_ref(), key.public_key_raw());
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && names.value.general_names.len() == 1);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);

    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    assert_eq!(leaf.validity().not_before.timestamp(), seconds(now) - 300);
    assert_eq!(leaf.validity().not_after.timestamp(), seconds(now) + 24 * 3600);
    assert_eq!(seconds(issued.expires_at), leaf.validity().not_after.timestamp());
}

#[test]
fn serial_numbers_are_positive_and_never_the_same() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let request = request(&KeyPair::generate().unwrap(), &[]);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let issued = authority.sign(&request, &orders(&authority), None, clock::wall()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        assert!(leaf.raw_serial()[0] < 0x80 && leaf.raw_serial().len() <= 20);
        assert!(seen.insert(leaf.raw_serial().to_vec()));
    }
}

type IsExpected = fn(&SignError) -> bool;

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let good = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), &[]);
    let mut tampered = good.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let trailing = [good.as_slice(), &[0]].concat();
    let of = |algorithm| request(&KeyPair::generate_for(algorithm).unwrap(), &[]);
    let cases: [(&str, Vec<u8>, IsExpected); 7] = [
        ("empty", Vec::new(), |error| matches!(error, SignError::Unreadable(_))),
        ("noise", vec![0x30; 200], |error| matches!(error, SignError::Unreadable(_))),
        ("trailing bytes", trailing, |error| matches!(error, SignError::Unreadable(_))),
        ("too large", vec![0x30; 9000], |error| matches!(error, SignError::TooLarge(9000))),
        ("tampered", tampered, |error| matches!(error, SignError::BadSignature)),
        ("P-384", of(&PKCS_ECDSA_P384_SHA384), |error| matches!(error, SignError::Key)),
        ("Ed25519", of(&PKCS_ED25519), |error| matches!(error, SignError::Key)),
    ];
    for (name, request, is_expected) in cases {
        let error = authority.sign(&request, &orders(&authority), None, clock::wall()).unwrap_err();
        assert!(is_expected(&error), "{name}: {error:?}");
    }
    authority.sign(&good, &orders(&authority), None, clock::wall()).unwrap();
}

#[test]
fn an_identity_of_another_trust_domain_is_not_signed() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let request = request(&KeyPair::generate().unwrap(), &[]);
    let stranger = SpiffeId::workload("elsewhere.local", "default", "orders");
    let error = authority.sign(&request, &stranger, None, clock::wall()).unwrap_err();
    assert!(matches!(error, SignError::TrustDomain { .. }), "{error}");
}

#[test]
fn no_certificate_outlives_the_root() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let request = request(&KeyPair::generate().unwrap(), &[]);
    let end = authority.root_expires_at();
    let issued = authority.sign(&request, &orders(&authority), None, end - Duration::from_mins(1)).unwrap();
    assert_eq!(issued.expires_at, end);
    let error = authority.sign(&request, &orders(&authority), None, end).unwrap_err();
    assert!(matches!(error, SignError::RootExpired { .. }), "{error}");
    let error = Authority::open(data.path(), &AuthorityOptions::default(), end).unwrap_err().to_string();
    assert!(error.contains("root certificate has expired"), "{error}");
}

#[test]
fn the_authority_prints_no_key() {
    let data = tempfile::tempdir().unwrap();
    let authority = open(data.path()).unwrap();
    let pem = fs::read_to_string(data.path().join("ca/root.key")).unwrap();
    let key = KeyPair::from_pem(&pem).unwrap();
    // The secret scalar of a P-256 key in PKCS#8 begins at byte 36.
    let secret = &key.serialized_der()[36..68];
    let as_list = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let printed = format!("{authority:?}");
    assert!(printed.contains("weft.local"));
    assert!(!printed.contains(&as_list) && !printed.contains(pem.lines().nth(1).unwrap()), "{printed}");
}

#[test]
fn a_damaged_key_is_not_quoted() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).unwrap();
    let path = data.path().join("ca/root.key");
    let pem = fs::read_to_string(&path).unwrap();
    fs::write(&path, pem.replace("-----END", "----END")).unwrap();
    let error = format!("{:?}", open(data.path()).unwrap_err());
    assert!(error.contains("root.key") && !error.contains(pem.lines().nth(1).unwrap()), "{error}");
}
