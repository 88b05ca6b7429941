//! Certificates verified before: proxies meet again and again, and verifying a chain costs as much as signing twice.
//!
//! Whether a chain is good depends on its bytes, the roots and the time, and on nothing else: we use no revocation
//! lists. So the verdict "good" is kept by the chain's bytes, for one generation of the bundle (the memory lives in the
//! verifier, which holds the roots) and one use of certificates, and it counts only while every certificate of the
//! chain is within its time. That the peer holds the key is proven anew by its signature in every full handshake.
//!
//! Only what verified is kept, so strangers cannot fill the memory. When it is full it begins anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, UnixTime};
use weft_core::names::SpiffeId;

use super::certificate::{Leaf, PeerError, validity};

/// Chains kept; about 1 KiB each. Enough for the peers of one workload.
const KEPT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Box<[u8]>, Chain>>);

#[derive(Debug)]
struct Chain {
    intermediates: Vec<CertificateDer<'static>>,
    identity: SpiffeId,
    /// Seconds since the Unix epoch; what all its certificates have in common.
    not_before: u64,
    not_after: u64,
}

impl Known {
    /// Whose chain this is, if it was found good before and is within its time.
    pub(super) fn find(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<SpiffeId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = known.get(leaf.as_ref())?;
        let in_time = (chain.not_before..=chain.not_after).contains(&now.as_secs());
        (in_time && chain.intermediates == intermediates).then(|| chain.identity.clone())
    }

    /// Keeps a chain that has just been found good.
    pub(super) fn keep(
        &self,
        leaf: &CertificateDer<'_>,
        read: &Leaf,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), PeerError> {
        let (mut not_before, mut not_after) = (read.not_before, read.not_after);
        for intermediate in intermediates {
            let (begin, end) = validity(intermediate)?;
            not_before = not_before.max(begin);
            not_after = not_after.min(end);
        }
        let intermediates = intermediates.iter().map(|one| one.clone().into_owned()).collect();
        let chain = Chain { intermediates, identity: read.identity.clone(), not_before, not_after };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(leaf.as_ref().into(), chain);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
