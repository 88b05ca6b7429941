//! The last good configuration on disk, so that a proxy can start while its control plane is away.
//!
//! One file, written whole: a temporary file beside it (0600: it tells the mesh's inside) is synchronised and renamed
//! over it, so that a reader sees the old or the new one. A format name, the node it was written for and a checksum
//! guard against foreign, half-written and decayed files; such a file is ignored, never half used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::ResourceType;
use super::session::Resource;

/// Names the layout below; a change of meaning gets a new name.
const FORMAT: &str = "weft.dev/last-good/v1";
/// Of a proxy that asks for destinations: what it used, not the mesh. One that wants everything would take it for that.
const FORMAT_ON_DEMAND: &str = "weft.dev/last-good/v2";

/// Largest file read: several times the largest mesh a proxy could hold.
const LARGEST: u64 = 1 << 30;

/// Why a file was ignored or not written.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("reading last good configuration {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("writing last good configuration {path}; is its directory writable for the proxy?")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is not a last good configuration of this proxy: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

/// What a session held.
#[derive(Debug, Clone, PartialEq)]
pub struct LastGood {
    pub resources: Vec<Resource>,
    /// Destinations that were used; `None` of a proxy that wants everything.
    pub asked: Option<Vec<SocketAddr>>,
}

/// The file: what it is, and its content under a checksum.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, tag = "1")]
    format: String,
    #[prost(fixed64, tag = "2")]
    checksum: u64,
    #[prost(bytes = "bytes", tag = "3")]
    content: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Content {
    /// `node.id` of the writer: another workload's configuration is worse than none.
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Entry>,
    /// Addresses that were asked for, with somebody there.
    #[prost(string, repeated, tag = "3")]
    asked: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "bytes", tag = "4")]
    body: Bytes,
}

/// Reads the file; `None` when there is none yet. Who wants everything takes none of a proxy that asks for destinations.
pub fn read(path: &Path, node: &str, is_on_demand: bool) -> Result<Option<LastGood>, LastGoodError> {
    let failed = |source| LastGoodError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    let too_large = bytes.len() as u64 > LARGEST;
    let held = if too_large { Err("larger than 1 GiB".to_owned()) } else { decode(bytes, node, is_on_demand) };
    match held {
        Ok(held) => Ok(Some(held)),
        Err(reason) => Err(LastGoodError::Unusable { path: path.to_owned(), reason }),
    }
}

/// Replaces the file. The resources are asked for twice, one by one.
pub fn write(
    path: &Path,
    node: &str,
    asked: Option<&[SocketAddr]>,
    resources: impl Iterator<Item = Resource> + Clone,
) -> Result<(), LastGoodError> {
    replace(path, |file| encode(node, asked, resources, file))
        .map_err(|source| LastGoodError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, content: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A leftover may have another mode, or be a link: it is not written through but replaced.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut buffered = BufWriter::new(&file);
    content(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    // Without this a power cut after the rename may leave the new name with no content.
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// An [`Envelope`], written piece by piece and hence encoded twice: whole, it would double what a large mesh takes.
fn encode(
    node: &str,
    asked: Option<&[SocketAddr]>,
    resources: impl Iterator<Item = Resource> + Clone,
    out: &mut impl Write,
) -> io::Result<()> {
    let format = if asked.is_some() { FORMAT_ON_DEMAND } else { FORMAT };
    let asked = asked.unwrap_or_default().iter().map(ToString::to_string).collect();
    let first = Content { node: node.to_owned(), resources: Vec::new(), asked };
    let (mut length, mut sum) = (0, CHECKSUM_OF_NOTHING);
    each_piece(&first, resources.clone(), |piece| {
        length += piece.len() as u64;
        sum = checksum(sum, piece);
        Ok(())
    })?;
    let mut head = Envelope { format: format.to_owned(), checksum: sum, content: Bytes::new() }.encode_to_vec();
    encode_key(3, WireType::LengthDelimited, &mut head);
    encode_varint(length, &mut head);
    out.write_all(&head)?;
    each_piece(&first, resources, |piece| out.write_all(piece))
}

/// The pieces of an encoded [`Content`]: encoded messages put together are one message with the fields of all.
fn each_piece(
    first: &Content,
    resources: impl Iterator<Item = Resource>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    take(&first.encode_to_vec())?;
    for resource in resources {
        let entry = Entry {
            type_url: resource.kind.url().to_owned(),
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            body: resource.body,
        };
        take(&Content { resources: vec![entry], ..Content::default() }.encode_to_vec())?;
    }
    Ok(())
}

fn decode(bytes: Vec<u8>, node: &str, is_on_demand: bool) -> Result<LastGood, String> {
    let envelope = Envelope::decode(Bytes::from(bytes)).map_err(|error| error.to_string())?;
    let has_asked = envelope.format == FORMAT_ON_DEMAND;
    if has_asked && !is_on_demand {
        return Err("it has only the destinations that were used, and this proxy wants all".to_owned());
    }
    if envelope.format != FORMAT && !has_asked {
        let found: String = envelope.format.chars().take(64).filter(|c| !c.is_control()).collect();
        return Err(format!("its format is `{found}`, not `{FORMAT}`"));
    }
    if checksum(CHECKSUM_OF_NOTHING, &envelope.content) != envelope.checksum {
        return Err("its checksum does not match its content".to_owned());
    }
    let content = Content::decode(envelope.content).map_err(|error| error.to_string())?;
    if content.node != node {
        return Err(format!("it was written for `{}`, this is `{node}`", content.node));
    }
    // A type this version does not read is left out; the control plane knows from the versions we tell.
    let resource = |entry: Entry| {
        Some(Resource {
            kind: ResourceType::from_url(&entry.type_url)?,
            name: entry.name.into(),
            version: entry.version.into(),
            // A slice of the whole file, which is gone when all are read.
            body: entry.body,
        })
    };
    let asked = has_asked.then(|| content.asked.iter().filter_map(|address| address.parse().ok()).collect());
    Ok(LastGood { resources: content.resources.into_iter().filter_map(resource).collect(), asked })
}

const CHECKSUM_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo): finds decay, not malice; who can write the file can do anything to the proxy.
fn checksum(of_before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(of_before, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn resources() -> Vec<Resource> {
        let resource = |kind, name: &str| Resource {
            kind,
            name: name.into(),
            version: "v1".into(),
            body: Bytes::from(format!("body of {name}")),
        };
        vec![resource(ResourceType::Cluster, "a"), resource(ResourceType::Routes, "b")]
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-good");
        (directory, path)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (_directory, path) = place();
        assert!(read(&path, "n", false).unwrap().is_none());
        write(&path, "n", None, resources().into_iter()).unwrap();
        assert_eq!(read(&path, "n", false).unwrap().unwrap(), LastGood { resources: resources(), asked: None });
    }

    #[test]
    fn what_was_used_is_no_mesh_and_a_mesh_is_enough_for_who_asks() {
        let (_directory, path) = place();
        let asked = vec![SocketAddr::from(([10, 96, 0, 7], 80)), "[fd00::7]:80".parse().unwrap()];
        write(&path, "n", Some(&asked), resources().into_iter()).unwrap();
        let held = LastGood { resources: resources(), asked: Some(asked) };
        assert_eq!(read(&path, "n", true).unwrap().unwrap(), held);
        let error = read(&path, "n", false).unwrap_err().to_string();
        assert!(error.contains("only the destinations that were used"), "{error}");
        write(&path, "n", None, resources().into_iter()).unwrap();
        assert_eq!(read(&path, "n", true).unwrap().unwrap().asked, None);
    }

    #[test]
    fn only_the_owner_may_read_the_file_whatever_was_left_there() {
        let (directory, path) = place();
        fs::write(directory.path().join("last-good.new"), "left over").unwrap();
        fs::write(&path, "old").unwrap();
        write(&path, "n", None, resources().into_iter()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_foreign_or_damaged_file_is_refused_with_the_reason() {
        let (_directory, path) = place();
        write(&path, "n", None, resources().into_iter()).unwrap();
        let good = fs::read(&path).unwrap();
        let mut decayed = good.clone();
        *decayed.last_mut().unwrap() ^= 1;
        let other_format = Envelope { format: "other".to_owned(), ..Default::default() }.encode_to_vec();
        let cases: [(&[u8], &str, &str); 6] = [
            (&decayed, "n", "checksum"),
            (&good[..good.len() / 2], "n", ""),
            (&good, "someone else", "written for `n`"),
            (&other_format, "n", "format is `other`"),
            (b"", "n", "format is ``"),
            (b"#!/bin/sh\n", "n", ""),
        ];
        for (bytes, node, reason) in cases {
            fs::write(&path, bytes).unwrap();
            let error = read(&path, node, true).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_is_an_error_that_names_the_file() {
        let (_directory, path) = place();
        let missing = path.join("state");
        assert!(
            write(&missing, "n", None, resources().into_iter()).unwrap_err().to_string().contains("last-good/state")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(bytes, "n", true).is_err());
        }
    }
}
