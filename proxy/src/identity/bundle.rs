//! The roots a proxy is given to know its control plane by.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::IdentityError;
use crate::tls;

/// Where the roots to trust are.
#[derive(Debug, Clone)]
pub enum Bundle {
    /// In a PEM file (`bundle.pem` of the control plane), read anew for each connection.
    File(PathBuf),
    /// Given literally: an injected pod needs no volume for them, and they are there from its first moment.
    Literal(Roots),
}

/// Roots from a text.
#[derive(Debug, Clone)]
pub struct Roots(Arc<[CertificateDer<'static>]>);

/// Why a text holds no roots.
#[derive(Debug, thiserror::Error)]
pub enum ParseRootsError {
    #[error("no certificate in PEM form in it; give the content of the control plane's bundle.pem")]
    Empty,
    #[error("a certificate in it cannot be used: {0}")]
    Unusable(String),
}

impl FromStr for Roots {
    type Err = ParseRootsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| ParseRootsError::Unusable(error.to_string()))?;
        if roots.is_empty() {
            return Err(ParseRootsError::Empty);
        }
        tls::trust_anchors(&roots).map_err(|error| ParseRootsError::Unusable(error.to_string()))?;
        Ok(Self(roots.into()))
    }
}

impl Bundle {
    /// The roots as they are now.
    pub(super) async fn read(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        match self {
            Self::Literal(Roots(roots)) => Ok(roots.to_vec()),
            Self::File(path) => {
                let text = tokio::fs::read(path).await.map_err(|source| IdentityError::Read {
                    what: "the trust bundle",
                    path: path.clone(),
                    source,
                })?;
                match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
                    Ok(roots) if !roots.is_empty() => Ok(roots),
                    _ => Err(IdentityError::EmptyBundle { path: path.clone() }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::TestRoot;

    #[test]
    fn roots_are_read_from_a_text_or_refused_with_the_reason() {
        let (first, second) = (TestRoot::new(), TestRoot::new());
        let both: Roots = format!("{}\n{}", first.pem(), second.pem()).parse().unwrap();
        assert_eq!(both.0.len(), 2);
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        for (text, expected) in [("", "no certificate"), ("roots", "no certificate"), (broken, "cannot be used")] {
            let error = text.parse::<Roots>().unwrap_err().to_string();
            assert!(error.contains(expected), "`{text}`: {error}");
        }
    }
}
