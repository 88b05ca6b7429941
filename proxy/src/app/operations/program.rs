//! Which program this is.

use std::fs::File;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use weft_proto::names::hexadecimal;

/// What runs here, even if the file was replaced or removed since.
const OWN: &str = "/proc/self/exe";
/// Read at a time: the program is never whole in memory.
const BLOCK: usize = 64 << 10;

/// SHA-256 of the program that runs, in lower-case hexadecimal digits; computed off the asynchronous threads.
pub(super) async fn digest() -> io::Result<String> {
    tokio::task::spawn_blocking(|| digest_of(File::open(OWN)?)).await.map_err(io::Error::other)?
}

fn digest_of(mut program: impl Read) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    loop {
        match program.read(&mut block) {
            Ok(0) => break,
            Ok(count) => context.update(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hexadecimal(context.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_whole_program_in_lower_case() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(io::empty()).unwrap(), empty);
        let long = vec![b'a'; 1_000_000];
        let known = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(digest_of(long.as_slice()).unwrap(), known);
    }

    #[tokio::test]
    async fn the_running_program_can_be_read() {
        assert_eq!(digest().await.unwrap().len(), 64);
    }
}
