//! Replaces the program of this proxy by one that the control plane offers: fetched, checked, and handed to the supervisor.
//!
//! The program comes over the connection the offer came by, so from the replica that made it, and goes into memory alone: a
//! file that has no name and is sealed when it is whole, since a proxy's root is read-only. Size and digest are those of the
//! offer, or nothing of it is ever run. One is taken at a time, and goes on when the stream of questions ends meanwhile.
//!
//! Whether programs are taken at all is this proxy's own setting, which no control plane can change.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::transport::Channel;
use weft_proto::names::{LARGEST_PROGRAM_BYTES, hexadecimal};
use weft_proto::weft::operations_client::OperationsClient;
use weft_proto::weft::{ProgramRequest, Upgrade};

use crate::supervise::{ReplaceError, Supervisor, Why};

/// From the request for a program to its last byte.
const TRANSFER_LIMIT: Duration = Duration::from_mins(1);
/// Chunks have half of it.
const LARGEST_CHUNK: usize = 128 << 10;
/// `MFD_EXEC` (`memfd_create(2)`, since Linux 6.3): says that the file is to be run, which kernels can forbid without that word.
const EXECUTABLE: MFdFlags = MFdFlags::from_bits_retain(0x10);

/// Takes programs; cloning gives another handle.
#[derive(Debug, Clone)]
pub(super) struct Upgrades {
    supervisor: Supervisor,
    /// One place.
    turn: Arc<Semaphore>,
}

/// Why this proxy keeps its program.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("another program is being taken at this moment; offer this one later")]
    Busy,
    #[error("the program has {0} bytes, and {LARGEST_PROGRAM_BYTES} are the most this proxy takes")]
    TooLarge(u64),
    #[error("the control plane did not send the program: {} ({:?})", .0.message(), .0.code())]
    Request(Box<Status>),
    #[error("the program was not there within {TRANSFER_LIMIT:?}")]
    TooSlow,
    #[error("{found} bytes came of a program of {expected}")]
    Size { expected: u64, found: u64 },
    #[error("what came is not the program that was offered: its SHA-256 is {found}, not {expected}")]
    Digest { expected: String, found: String },
    #[error(
        "no program can be held in memory here: {0}; vm.memfd_noexec of the node must not be 2, and memory must be left"
    )]
    Memory(#[source] io::Error),
    #[error("the replacement ended: {0}")]
    Ended(String),
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl From<Status> for UpgradeError {
    fn from(status: Status) -> Self {
        Self::Request(Box::new(status))
    }
}

impl Upgrades {
    /// `None` where the kernel runs no program from memory.
    pub(super) fn new(supervisor: Supervisor) -> Option<Self> {
        match memory_file() {
            Ok(_) => Some(Self { supervisor, turn: Arc::new(Semaphore::new(1)) }),
            Err(error) => {
                tracing::info!(error = %UpgradeError::Memory(error), "this proxy keeps its program until it restarts");
                None
            }
        }
    }

    /// Runs the offered program in the place of this one: when it returns well, the new one serves. Goes on when it is dropped.
    pub(super) async fn take(&self, channel: Channel, offer: Upgrade) -> Result<(), UpgradeError> {
        let turn = Arc::clone(&self.turn).try_acquire_owned().map_err(|_| UpgradeError::Busy)?;
        let supervisor = self.supervisor.clone();
        let task = tokio::spawn(async move {
            let program = tokio::time::timeout(TRANSFER_LIMIT, fetch(channel, &offer)).await;
            let program = program.map_err(|_| UpgradeError::TooSlow)??;
            tracing::info!(version = offer.version, digest = offer.digest, "the control plane's program takes over");
            let replaced = supervisor.replace(program).await;
            drop(turn);
            if let Err(ReplaceError::Refused { why: Why::Ending, .. }) = replaced {
                // No fault of the program's, which others may have; who asked sees us go.
                std::future::pending::<()>().await;
            }
            replaced.map_err(UpgradeError::from)
        });
        task.await.map_err(|error| UpgradeError::Ended(error.to_string()))?
    }
}

/// The offered program, whole and sealed.
async fn fetch(channel: Channel, offer: &Upgrade) -> Result<File, UpgradeError> {
    if offer.size > LARGEST_PROGRAM_BYTES {
        return Err(UpgradeError::TooLarge(offer.size));
    }
    let mut program = Incoming::new(offer.size).map_err(UpgradeError::Memory)?;
    let mut client = OperationsClient::new(channel).max_decoding_message_size(LARGEST_CHUNK);
    let mut chunks = client.program(ProgramRequest { digest: offer.digest.clone() }).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        program.push(&chunk.data)?;
    }
    program.finish(&offer.digest)
}

/// A program on its way into memory.
struct Incoming {
    file: File,
    digest: Context,
    expected: u64,
    found: u64,
}

impl Incoming {
    fn new(expected: u64) -> io::Result<Self> {
        Ok(Self { file: memory_file()?, digest: Context::new(&SHA256), expected, found: 0 })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), UpgradeError> {
        self.found += bytes.len() as u64;
        if self.found > self.expected {
            return Err(UpgradeError::Size { expected: self.expected, found: self.found });
        }
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(UpgradeError::Memory)
    }

    fn finish(self, expected: &str) -> Result<File, UpgradeError> {
        if self.found != self.expected {
            return Err(UpgradeError::Size { expected: self.expected, found: self.found });
        }
        let found = hexadecimal(self.digest.finish().as_ref());
        if found != expected {
            return Err(UpgradeError::Digest { expected: expected.to_owned(), found });
        }
        // Nothing changes it from here on, not even a proxy that was taken over.
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(seals)).map_err(|error| UpgradeError::Memory(error.into()))?;
        Ok(self.file)
    }
}

/// An empty file in memory that may be run.
fn memory_file() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create("weft-proxy", flags | EXECUTABLE) {
        // A kernel that does not know the flag runs every such file.
        Err(Errno::EINVAL) => memfd_create("weft-proxy", flags),
        made => made,
    };
    Ok(File::from(file?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn of(bytes: &[u8]) -> String {
        hexadecimal(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref())
    }

    /// A program that came in these pieces, offered with this size and digest.
    fn came(pieces: &[&[u8]], size: u64, digest: &str) -> Result<File, UpgradeError> {
        let mut incoming = Incoming::new(size).expect("this kernel runs files in memory");
        for piece in pieces {
            incoming.push(piece)?;
        }
        incoming.finish(digest)
    }

    #[test]
    fn what_came_is_what_was_offered_or_is_never_run() {
        let digest = of(b"program");
        assert!(came(&[b"pro", b"gram"], 7, &digest).is_ok());
        let cases: [(&[&[u8]], u64, &str); 4] = [
            (&[b"pro"], 7, "3 bytes came of a program of 7"),
            (&[b"pro", b"gram", b"mes"], 7, "10 bytes came of a program of 7"),
            (&[b"prograM"], 7, "is not the program that was offered"),
            (&[], 0, "is not the program that was offered"),
        ];
        for (pieces, size, expected) in cases {
            let error = came(pieces, size, &digest).expect_err("it was taken").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_program_in_memory_runs_and_nobody_can_change_it() {
        let bytes = std::fs::read("/bin/true").unwrap();
        let mut program = came(&[&bytes], bytes.len() as u64, &of(&bytes)).unwrap();
        let status = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())).status().unwrap();
        assert!(status.success());
        assert!(program.write_all(b"more").is_err() && program.set_len(0).is_err());
    }
}
