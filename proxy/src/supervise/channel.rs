//! The socket between supervisor and proxy: packets, with descriptors that are owned from the moment they arrive.
//!
//! A pair of connected sockets without names, which nobody else can reach. Packets keep their borders; nothing here waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::message::{ListenerName, MAX_PACKET, Message, MessageError};

/// Room for as many descriptors as the kernel puts into one packet: too little room would lose them.
const RECEIVED_SPACE: usize = rustix::cmsg_space!(ScmRights(253));

/// Why nothing could be sent or received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("the socket between supervisor and proxy failed: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("a packet of the handover is larger than {MAX_PACKET} bytes")]
    TooLarge,
    #[error("a message of the handover came with {found} descriptors, not {expected}")]
    Descriptors { expected: usize, found: usize },
}

/// A listening socket and which one it is.
#[derive(Debug)]
pub struct Inherited {
    pub name: ListenerName,
    pub socket: OwnedFd,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What came.
#[derive(Debug)]
pub(super) enum Received<M> {
    Message(M, Vec<OwnedFd>),
    /// A message of a later version.
    Unknown,
    /// Nothing now.
    Nothing,
    /// The other side is gone.
    End,
}

/// Both ends; the second is for the child. Neither survives an `exec` by itself.
pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Channel(ours), theirs))
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one message; `WouldBlock` when the other side does not read.
    pub(super) fn send<M: Message>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = message.encode();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(&packet)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one message.
    pub(super) fn receive<M: Message>(&self) -> Result<Received<M>, ChannelError> {
        let mut packet = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); RECEIVED_SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut packet)], &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET) => return Ok(Received::End),
                Err(error) => return Err(ChannelError::Socket(error.into())),
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLarge);
        }
        let Some(message) = M::decode(&packet[..received.bytes])? else { return Ok(Received::Unknown) };
        let (expected, found) = (message.descriptors(), descriptors.len());
        if expected != found {
            return Err(ChannelError::Descriptors { expected, found });
        }
        Ok(Received::Message(message, descriptors))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::supervise::message::{Batch, FromProxy, ToProxy, kind};

    #[test]
    fn listeners_travel_with_their_names() {
        let (ours, theirs) = pair().unwrap();
        let theirs = Channel::new(theirs);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = ListenerName { kind: kind::INBOUND, address: "127.0.0.1:0".to_owned(), fixed: String::new() };
        let batch = Batch { names: vec![name], is_last: true };
        ours.send(&ToProxy::TakeOver(batch.clone()), &[listener.as_fd()]).unwrap();
        let Received::Message(ToProxy::TakeOver(found), mut sockets) = theirs.receive().unwrap() else { panic!() };
        assert_eq!(found, batch);
        let taken = TcpListener::from(sockets.remove(0));
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        let flags = rustix::io::fcntl_getfd(&taken).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "it would survive an exec");
    }

    #[test]
    fn a_message_without_its_descriptors_is_refused_and_the_next_one_read() {
        let (ours, theirs) = pair().unwrap();
        let theirs = Channel::new(theirs);
        theirs.send(&FromProxy::Replace, &[]).unwrap();
        theirs.send(&FromProxy::Serving, &[theirs.as_fd()]).unwrap();
        theirs.send(&FromProxy::Configured, &[]).unwrap();
        for (expected, found) in [(1, 0), (0, 1)] {
            let refused = ours.receive::<FromProxy>().unwrap_err();
            assert!(
                matches!(refused, ChannelError::Descriptors { expected: e, found: f } if (e, f) == (expected, found)),
                "{refused}"
            );
        }
        assert!(matches!(ours.receive().unwrap(), Received::Message(FromProxy::Configured, _)));
        assert!(matches!(ours.receive::<FromProxy>().unwrap(), Received::Nothing));
        drop(theirs);
        assert!(matches!(ours.receive::<FromProxy>().unwrap(), Received::End));
    }

    #[test]
    fn what_is_no_message_is_an_error_and_what_is_unknown_is_told() {
        let (ours, theirs) = pair().unwrap();
        let send = |bytes: &[u8]| rustix::net::send(&theirs, bytes, SendFlags::empty()).unwrap();
        send(&[1]);
        send(&[99, 1, 2, 3]);
        send(&vec![2; MAX_PACKET + 1]);
        assert!(matches!(ours.receive::<FromProxy>(), Err(ChannelError::Message(MessageError::Short))));
        assert!(matches!(ours.receive::<FromProxy>(), Ok(Received::Unknown)));
        assert!(matches!(ours.receive::<FromProxy>(), Err(ChannelError::TooLarge)));
    }
}
