//! Join tokens: what a workload without a certificate proves its identity with.
//!
//! A token is 256 random bits, good for one namespace and service account until it expires, as often as needed (a
//! proxy that restarts needs it again). Only SHA-256 hashes are kept, in `DIR/ca/tokens.json`: a hash of 256 random
//! bits cannot be searched for, so it needs no salt and no slow function.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tonic::Status;
use weft_core::names::SpiffeId;

use super::{BoundPod, CaError, DIRECTORY, ProofSource, files};

/// Life of a token when nobody says otherwise.
pub const DEFAULT_TOKEN_LIFE: Duration = Duration::from_hours(1);
/// Longest life: what is needed for longer is a certificate, which renews itself.
const LONGEST_LIFE: Duration = Duration::from_hours(365 * 24);
/// Bound of the table: each request by token compares with all of it.
const MOST_TOKENS: usize = 16_384;
const PREFIX: &str = "weft-join-";

/// Why a token was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the join token is not known here; ask for a new one")]
    Unknown,
    #[error("the join token has expired; ask for a new one")]
    Expired,
    #[error("the join token is for ns/{namespace}/sa/{service_account}, not for the identity asked for")]
    OtherIdentity { namespace: String, service_account: String },
    #[error("`{namespace}/{service_account}` is no workload identity; letters, digits, `.`, `-` and `_` are allowed")]
    Name { namespace: String, service_account: String },
    #[error("a join token cannot live for {0:?}; choose between one second and 365 days")]
    Life(Duration),
    #[error("there are {MOST_TOKENS} join tokens in force; wait until some expire and choose shorter lives")]
    Full,
    #[error("the system gives no random numbers")]
    Random,
    #[error(transparent)]
    File(#[from] CaError),
}

/// A new token. Its text exists here and in the hands of whom it is given to.
pub struct JoinToken {
    text: String,
    pub expires_at: SystemTime,
}

impl JoinToken {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

// By hand: the text is a secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the token's text, hexadecimal.
    hash: String,
    namespace: String,
    service_account: String,
    /// Seconds since the Unix epoch.
    expires_at: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    tokens: Vec<Record>,
}

/// The tokens in force. Creating one writes a small file and blocks for it; verifying only reads memory.
#[derive(Debug)]
pub struct JoinTokens {
    path: PathBuf,
    table: Mutex<Table>,
}

impl JoinTokens {
    /// Reads the tokens of a data directory; those that have expired are forgotten.
    pub fn open(data: &Path, now: SystemTime) -> Result<Self, CaError> {
        let directory = data.join(DIRECTORY);
        files::private_directory(&directory)?;
        let path = directory.join("tokens.json");
        let mut table = match files::read_private(&path)? {
            Some(text) => serde_json::from_str::<Table>(&text).map_err(|error| CaError::Unusable {
                place: path.display().to_string(),
                reason: format!("{error}; remove it, and every join token is void"),
            })?,
            None => Table::default(),
        };
        table.forget_expired(now);
        Ok(Self { path, table: Mutex::new(table) })
    }

    /// Makes a token for one identity.
    pub fn create(
        &self,
        namespace: &str,
        service_account: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<JoinToken, TokenError> {
        if SpiffeId::parse(SpiffeId::workload("t", namespace, service_account).as_str()).is_err() {
            return Err(TokenError::Name { namespace: namespace.into(), service_account: service_account.into() });
        }
        if life < Duration::from_secs(1) || life > LONGEST_LIFE {
            return Err(TokenError::Life(life));
        }
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| TokenError::Random)?;
        let text = format!("{PREFIX}{}", hexadecimal(&secret));
        let expires_at = unix_seconds(now + life);
        let record = Record {
            hash: hash(&text),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            expires_at,
        };
        self.add(record, now)?;
        Ok(JoinToken { text, expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(expires_at) })
    }

    fn add(&self, record: Record, now: SystemTime) -> Result<(), TokenError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.forget_expired(now);
        if table.tokens.len() >= MOST_TOKENS {
            return Err(TokenError::Full);
        }
        table.tokens.push(record);
        // On disk before it is handed out; what could not be written is not in force.
        let text = serde_json::to_string(&*table).expect("text and numbers are always JSON");
        files::write(&self.path, &text, files::PRIVATE).inspect_err(|_| {
            table.tokens.pop();
        })?;
        Ok(())
    }

    /// Whether `token` proves that its holder is `namespace`/`service_account`.
    pub fn verify(
        &self,
        token: &str,
        namespace: &str,
        service_account: &str,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let hash = hash(token);
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Every record is compared to its end: the time taken says nothing about how near a guess was.
        let mut found = None;
        for record in &table.tokens {
            if verify_slices_are_equal(record.hash.as_bytes(), hash.as_bytes()).is_ok() {
                found = Some(record);
            }
        }
        let record = found.ok_or(TokenError::Unknown)?;
        if record.is_expired(now) {
            return Err(TokenError::Expired);
        }
        if (record.namespace.as_str(), record.service_account.as_str()) != (namespace, service_account) {
            return Err(TokenError::OtherIdentity {
                namespace: record.namespace.clone(),
                service_account: record.service_account.clone(),
            });
        }
        Ok(())
    }
}

impl ProofSource for JoinTokens {
    type Error = TokenError;
    // The token is for the first certificate: it expires, and nobody brings a new one.
    const RENEWS_BY_CERTIFICATE: bool = true;

    async fn prove(
        &self,
        token: &str,
        namespace: &str,
        service_account: &str,
        now: SystemTime,
    ) -> Result<Option<BoundPod>, TokenError> {
        self.verify(token, namespace, service_account, now).map(|()| None)
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::OtherIdentity { .. } => Self::permission_denied(error.to_string()),
            _ => Self::unauthenticated(error.to_string()),
        }
    }
}

impl Table {
    fn forget_expired(&mut self, now: SystemTime) {
        self.tokens.retain(|record| !record.is_expired(now));
    }
}

impl Record {
    fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at <= unix_seconds(now)
    }
}

fn hash(token: &str) -> String {
    hexadecimal(digest(&SHA256, token.as_bytes()).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
