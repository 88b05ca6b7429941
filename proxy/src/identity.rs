//! Stage `identity`: gets the workload's certificate from the control plane and keeps it fresh.
//!
//! Each certificate has a fresh key, made here and never written anywhere. The first request is proved by a token; later
//! ones by the certificate in force and the token as it is then, and by the token alone if that fails. Renewal begins at
//! half of the certificate's life. While the control plane is away the old certificate stays in force and requests are
//! repeated with growing pauses: a control plane may be gone for half a certificate's life and nobody notices.

mod bundle;
mod connector;
mod request;
mod resolve;
mod schedule;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{counter, gauge};

use crate::clock;
use crate::tls::{CredentialStore, Credentials, CredentialsError, TlsError};

pub use bundle::{Bundle, ParseRootsError, Roots};
pub use connector::channel;
pub use request::obtain;
pub use schedule::{backoff, is_nearly_over, renewal_at};

/// Longest sleep before the calendar is looked at again: a machine that was suspended must not sleep through its
/// certificate's end, as timers do not run meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_mins(5);

/// Who we are and whom we ask.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT` of the control plane.
    pub control_plane: String,
    /// The roots to trust before the control plane has told any.
    pub bundle: Bundle,
    /// File with the join token, or with the pod's service-account token. Read anew for each request: the kubelet
    /// replaces it long before it expires.
    pub token_file: Option<PathBuf>,
    pub namespace: String,
    pub service_account: String,
    /// Mark of our control connections, by which capture lets them pass. Needs `CAP_NET_ADMIN`.
    pub socket_mark: Option<u32>,
}

/// Why a certificate or a control connection could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}: no certificate in PEM form; copy bundle.pem from the control plane's data directory", path.display())]
    EmptyBundle { path: PathBuf },
    #[error("no proof of identity: there is no certificate yet and no join token file is set (WEFT_JOIN_TOKEN_FILE)")]
    NoProof,
    #[error("no certificate yet, so the control plane cannot know who asks")]
    NoCertificate,
    #[error("the certificate of `{0}` has expired; renewal goes on")]
    Expired(weft_core::names::SpiffeId),
    #[error("cannot resolve the control plane's address `{address}`: {source}")]
    Resolve { address: String, source: std::io::Error },
    #[error("the control plane's address `{0}` resolves to nothing")]
    NoAddress(String),
    #[error("cannot mark the control connection with {mark}: {source}; the proxy needs CAP_NET_ADMIN for that")]
    Mark { mark: u32, source: std::io::Error },
    #[error("cannot connect to the control plane at {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("tls with the control plane at {address}: {source}")]
    Tls { address: String, source: TlsError },
    #[error("the control plane at {address} did not answer within {limit:?}")]
    TimedOut { address: String, limit: Duration },
    #[error("no gRPC connection to the control plane at {address}: {}", chain(source))]
    Transport { address: String, source: tonic::transport::Error },
    #[error("the control plane did not sign ({code:?}): {message}")]
    Refused { code: tonic::Code, message: String },
    #[error("cannot make a key and a signing request: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the signed certificate cannot be used: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("the control plane signed a certificate that is over already; compare the clocks of both machines")]
    ClocksDiffer,
    #[error("the control plane signed `{found}`, asked was ns/{namespace}/sa/{service_account}")]
    WrongIdentity { found: weft_core::names::SpiffeId, namespace: String, service_account: String },
}

/// An error with its causes; tonic's own message is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Keeps `store` supplied with a valid certificate until `shutdown` is done.
pub async fn run(
    options: Options,
    store: Arc<CredentialStore>,
    mut chance: fastrand::Rng,
    shutdown: impl Future<Output = ()>,
) {
    let work = async {
        let mut failures = 0;
        loop {
            match request::obtain(&options, store.current().as_deref()).await {
                Ok(credentials) => {
                    failures = 0;
                    let now = clock::wall();
                    let renewal = renewal_at(now, credentials.expires_at, &mut chance);
                    put_in_force(&store, credentials, renewal);
                    sleep_until(renewal).await;
                }
                Err(error) => {
                    let current = store.current();
                    let pause = backoff(failures, current.is_some(), &mut chance);
                    report(&error, failures, current.as_deref(), pause);
                    drop(current);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown => {}
    }
}

fn put_in_force(store: &CredentialStore, credentials: Credentials, renewal: SystemTime) {
    counter!("weft_certificate_renewals_total", "result" => "ok").increment(1);
    gauge!("weft_certificate_expiry_timestamp_seconds").set(unix_seconds(credentials.expires_at));
    let identity = credentials.identity.clone();
    let expires = unix_seconds(credentials.expires_at);
    let generation = store.publish(credentials);
    tracing::info!(%identity, generation, expires, renewal = unix_seconds(renewal), "certificate in force");
}

/// Says what went wrong: loudly the first time and when the certificate is nearly over, quietly in between.
fn report(error: &IdentityError, failures: u32, current: Option<&Credentials>, pause: Duration) {
    counter!("weft_certificate_renewals_total", "result" => "failed").increment(1);
    let Some(current) = current else {
        if failures.is_multiple_of(10) {
            tracing::warn!(%error, ?pause, "no certificate yet, trying again");
        } else {
            tracing::debug!(%error, ?pause, "no certificate yet, trying again");
        }
        return;
    };
    let now = clock::wall();
    let left = current.expires_at.duration_since(now).unwrap_or_default();
    if is_nearly_over(now, current.valid_from, current.expires_at) {
        tracing::error!(%error, ?left, ?pause, "the certificate is nearly over and cannot be renewed");
    } else if failures == 0 {
        tracing::warn!(%error, ?left, ?pause, "the certificate was not renewed, the old one stays in force");
    } else {
        tracing::debug!(%error, ?left, ?pause, "the certificate was not renewed, the old one stays in force");
    }
}

async fn sleep_until(when: SystemTime) {
    while let Ok(left) = when.duration_since(clock::wall()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Text that must not be printed: the join token on its way from file to request.
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
