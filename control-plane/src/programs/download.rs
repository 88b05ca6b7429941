//! A program's bytes on their way to proxies: in pieces, read as they are taken.
//!
//! [`MOST_AT_ONCE`] transfers read at once, as many as [`MOST_WAITING`] wait for their turn, and whoever comes beyond is
//! refused. A transfer that takes longer than [`LIMIT`] ends, however slowly its reader reads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{Program, Programs};

/// Each holds few pieces, so this bounds the work of the disk and the network rather than memory.
pub const MOST_AT_ONCE: usize = 16;
/// More proxies than a rollout asks at once.
const MOST_WAITING: usize = 64;
/// From the first wait to the last piece. The proxy's own limit is the same.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Pieces that are read ahead of the transport.
const AHEAD: usize = 2;

/// Gives programs away; cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Downloads {
    programs: Programs,
    reading: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    limit: Duration,
}

/// Why a proxy does not get a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    #[error("this control plane has no proxy program of digest {0}")]
    Unknown(String),
    #[error("{} transfers of the proxy program are under way or wait; ask again later", MOST_AT_ONCE + MOST_WAITING)]
    Busy,
    #[error("the transfer took longer than {0:?}")]
    TooSlow(Duration),
    #[error("the proxy program cannot be read: {0}")]
    Read(String),
}

/// The pieces of a program in order; the first error is the last of them.
pub type Pieces = ReceiverStream<Result<Vec<u8>, DownloadError>>;

impl Downloads {
    pub fn new(programs: Programs) -> Self {
        Self::limited(programs, LIMIT)
    }

    fn limited(programs: Programs, limit: Duration) -> Self {
        let reading = Arc::new(Semaphore::new(MOST_AT_ONCE));
        Self { programs, reading, waiting: Arc::new(Semaphore::new(MOST_AT_ONCE + MOST_WAITING)), limit }
    }

    /// The program of that digest.
    ///
    /// # Errors
    /// When there is none, or no place.
    pub fn begin(&self, digest: &str) -> Result<Pieces, DownloadError> {
        // The text is a stranger's.
        let shown = || digest.chars().take(64).collect();
        let program = self.programs.of_digest(digest).ok_or_else(|| DownloadError::Unknown(shown()))?;
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            count("refused");
            return Err(DownloadError::Busy);
        };
        let (pieces, taken) = mpsc::channel(AHEAD);
        let (reading, limit) = (Arc::clone(&self.reading), self.limit);
        tokio::spawn(async move {
            gauge!("weft_proxy_program_downloads").increment(1);
            let sent = tokio::time::timeout(limit, send(&program, &reading, &pieces)).await;
            let result = sent.unwrap_or(Err(Some(DownloadError::TooSlow(limit))));
            count(if result.is_ok() { "sent" } else { "failed" });
            if let Err(Some(error)) = result {
                tracing::warn!(%error, "a proxy did not get its program");
                // A reader that does not read is not told.
                let _ = pieces.try_send(Err(error));
            }
            gauge!("weft_proxy_program_downloads").decrement(1);
            drop(place);
        });
        Ok(ReceiverStream::new(taken))
    }
}

fn count(result: &'static str) {
    counter!("weft_proxy_program_downloads_total", "result" => result).increment(1);
}

/// `Err(None)`: the reader has gone.
async fn send(
    program: &Arc<Program>,
    reading: &Semaphore,
    pieces: &mpsc::Sender<Result<Vec<u8>, DownloadError>>,
) -> Result<(), Option<DownloadError>> {
    let _turn = reading.acquire().await.expect("it is never closed");
    let mut offset = 0;
    loop {
        let read = Arc::clone(program);
        let piece = tokio::task::spawn_blocking(move || read.piece(offset)).await;
        let piece = piece.map_err(io::Error::other).and_then(|piece| piece);
        let piece = piece.map_err(|error| Some(DownloadError::Read(error.to_string())))?;
        if piece.is_empty() {
            return Ok(());
        }
        offset += piece.len() as u64;
        pieces.send(Ok(piece)).await.map_err(|_| None)?;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio_stream::StreamExt;

    use super::*;
    use crate::programs::PIECE_BYTES;
    use crate::programs::tests::file;

    /// Programs of a file with so many bytes after its head; its whole text, and its digest.
    fn programs(directory: &tempfile::TempDir, bytes: usize) -> (Programs, PathBuf, String) {
        let rest: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        let path = file(directory.path(), "program", 62, &rest);
        let programs = Programs::open(std::slice::from_ref(&path)).unwrap();
        let digest = programs.facts().next().unwrap().digest.clone();
        (programs, path, digest)
    }

    #[tokio::test]
    async fn a_program_comes_in_pieces_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (programs, path, digest) = programs(&directory, PIECE_BYTES * 3 + 5);
        let downloads = Downloads::new(programs);
        let pieces: Vec<_> = downloads.begin(&digest).unwrap().map(Result::unwrap).collect().await;
        assert!(pieces.len() == 4 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), std::fs::read(path).unwrap());
        let error = downloads.begin("ab").unwrap_err().to_string();
        assert_eq!(error, "this control plane has no proxy program of digest ab");
    }

    #[tokio::test]
    async fn a_program_that_got_shorter_is_told_and_not_given_by_halves() {
        let directory = tempfile::tempdir().unwrap();
        let (programs, path, digest) = programs(&directory, PIECE_BYTES);
        std::fs::File::options().write(true).open(path).unwrap().set_len(30).unwrap();
        let pieces: Vec<_> = Downloads::new(programs).begin(&digest).unwrap().collect().await;
        assert!(matches!(&pieces[..], [Err(DownloadError::Read(_))]), "{pieces:?}");
    }

    #[tokio::test]
    async fn those_beyond_the_places_are_refused_and_those_who_do_not_read_lose_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let (programs, _, digest) = programs(&directory, PIECE_BYTES * 8);
        let downloads = Downloads::limited(programs, Duration::from_millis(200));
        let idle: Vec<_> = (0..MOST_AT_ONCE + MOST_WAITING).map(|_| downloads.begin(&digest).unwrap()).collect();
        assert_eq!(downloads.begin(&digest).err(), Some(DownloadError::Busy));
        // Nobody has read a piece, and the places come back.
        let free = async {
            loop {
                if let Ok(mut pieces) = downloads.begin(&digest) {
                    return pieces.next().await;
                }
                tokio::task::yield_now().await;
            }
        };
        let first = tokio::time::timeout(Duration::from_secs(20), free).await.expect("a place comes free");
        assert!(first.unwrap().is_ok());
        drop(idle);
    }
}
