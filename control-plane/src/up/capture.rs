//! Where a pod's traffic is redirected to its proxy: the one call into [`weft_proxy::capture`].

use serde::{Deserialize, Serialize};
use weft_proto::names::{INBOUND_PORT, OUTBOUND_PORT};
use weft_proxy::capture::{self, CaptureError, Rules};

/// The proxy's user in root mode: no distribution's range, so no program runs as it by chance.
pub(super) const PROXY_USER: u32 = 14001;
/// The mark on the proxy's own connections where there is only one user.
pub(super) const PROXY_MARK: u32 = 0x0077_6566;

/// Whose traffic is left alone: the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exempt {
    User(u32),
    Mark(u32),
}

/// Redirects the TCP traffic of this network namespace to the proxy's ports.
pub(super) fn install(exempt: Exempt) -> Result<(), CaptureError> {
    let exempt = match exempt {
        Exempt::User(uid) => capture::Exempt::Uid(uid),
        Exempt::Mark(mark) => capture::Exempt::Mark(mark),
    };
    capture::install(&Rules { outbound_port: OUTBOUND_PORT, inbound_port: INBOUND_PORT, exempt, ..Rules::default() })
}
