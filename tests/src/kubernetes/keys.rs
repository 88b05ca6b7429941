//! Certificates and keys of a cluster, all made by one authority of its own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::network::{NODE, SERVICE_OF_API};

/// Files of a cluster's keys.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// Makes all of them in a directory of their own.
    pub fn make(directory: &Path) -> Self {
        std::fs::create_dir(directory).expect("the place can be written to");
        let keys = Self { directory: directory.to_owned() };
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new([]).expect("no names are good names");
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority signs itself");
        keys.write("ca.crt", &authority.pem());

        let names =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        let addresses = ["127.0.0.1".to_owned(), NODE.to_string(), SERVICE_OF_API.to_string()];
        let names: Vec<String> = names.iter().map(ToString::to_string).chain(addresses).collect();
        keys.leaf(&authority, "apiserver", "kube-apiserver", None, &names, ExtendedKeyUsagePurpose::ServerAuth);
        // Of the group that may do everything: roles are tested with tokens.
        let all = Some("system:masters");
        keys.leaf(&authority, "admin", "admin", all, &[], ExtendedKeyUsagePurpose::ClientAuth);

        let accounts = KeyPair::generate().expect("a key can be made");
        keys.write("accounts.key", &accounts.serialize_pem());
        keys.write("accounts.pub", &accounts.public_key_pem());
        keys
    }

    fn leaf(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        file: &str,
        name: &str,
        group: Option<&str>,
        alternatives: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(alternatives).expect("the names are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, authority).expect("an authority signs");
        self.write(&format!("{file}.crt"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the place can be written to");
    }

    /// `ca.crt`, `apiserver.{crt,key}`, `admin.{crt,key}`, `accounts.{key,pub}`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
