//! Listening sockets on their way between processes: one message of JSON, with the descriptors beside its first bytes.
//!
//! The kernel counts a passed descriptor as another hold on the same socket, with the same queue of connections. So a
//! node can die and the next one accepts what was waiting; and an agent can die and the next one gets the sockets back.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::api::SOCKETS_MAX;

/// The longest message; names and addresses only.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What is asked over `sockets.sock`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SocketsRequest {
    /// Copies of the descriptors of these listeners.
    Take(Vec<String>),
    /// Here are the descriptors of these listeners, in this order: hold them.
    Return(Vec<SocketGroup>),
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SocketsAnswer {
    /// The descriptors of these listeners, in this order.
    Taken(Vec<SocketGroup>),
    /// These are held now.
    Returned(Vec<String>),
    /// No, in a sentence.
    Refused(String),
}

/// How many of the descriptors belong to which listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketGroup {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) count: usize,
}

/// Sends one message.
///
/// # Cancellation
/// Not cancel safe: a message may have been sent in part, and the connection is then of no more use.
pub(crate) async fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > usize::from(SOCKETS_MAX) {
        return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets in one message")));
    }
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    let mut sent = 0;
    while sent < bytes.len() {
        let beside = if sent == 0 { descriptors } else { &[] };
        sent += stream.async_io(Interest::WRITABLE, || send_once(stream, &bytes[sent..], beside)).await?;
    }
    Ok(())
}

fn send_once(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many sockets in one message"));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives one message.
///
/// # Cancellation
/// Not cancel safe, as [`send`].
pub(crate) async fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    let length = loop {
        if let Some(length) = announced(&bytes)?
            && bytes.len() >= 4 + length
        {
            break length;
        }
        let read = stream
            .async_io(Interest::READABLE, || receive_once(stream, &mut bytes, &mut descriptors))
            .await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    Ok((serde_json::from_slice(&bytes[4..4 + length])?, descriptors))
}

/// The length that a message begins with, once that is there.
fn announced(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).map_err(io::Error::other)?;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message of {length} bytes; {MESSAGE_BYTES_MAX} are allowed"
        )));
    }
    Ok(Some(length))
}

fn receive_once(
    stream: &UnixStream,
    bytes: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0_u8; 4_096];
    let received =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    bytes.extend_from_slice(&chunk[..received.bytes]);
    Ok(received.bytes)
}

/// Deals descriptors out to the groups they were announced for.
pub(crate) fn deal(
    groups: Vec<SocketGroup>,
    descriptors: Vec<OwnedFd>,
) -> io::Result<Vec<(SocketGroup, Vec<OwnedFd>)>> {
    let announced = groups.iter().map(|group| group.count).sum::<usize>();
    if announced != descriptors.len() {
        let got = descriptors.len();
        return Err(io::Error::other(format!("{got} sockets came, {announced} were announced")));
    }
    let mut rest = descriptors.into_iter();
    Ok(groups
        .into_iter()
        .map(|group| {
            let own = rest.by_ref().take(group.count).collect();
            (group, own)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn sockets_travel_with_their_message_and_are_dealt_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let group = |name: &str, count, first: &TcpListener| SocketGroup {
            name: name.into(),
            address: first.local_addr().unwrap(),
            count,
        };
        let groups = vec![group("a", 1, &listeners[0]), group("b", 2, &listeners[1])];
        let borrowed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        send(&here, &SocketsRequest::Return(groups.clone()), &borrowed).await.unwrap();
        let (request, passed) = receive::<SocketsRequest>(&there).await.unwrap();
        let SocketsRequest::Return(announced) = request else { panic!("{request:?}") };
        assert_eq!(announced, groups);
        let dealt = deal(announced, passed).unwrap();
        let last = TcpListener::from(dealt.into_iter().next_back().unwrap().1.pop().unwrap());
        assert_eq!(last.local_addr().unwrap(), listeners[2].local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_or_short_of_sockets_is_refused() {
        let (here, there) = UnixStream::pair().unwrap();
        here.try_write(&[0xff; 8]).unwrap();
        assert!(receive::<SocketsRequest>(&there).await.is_err());
        let address = "127.0.0.1:1".parse().unwrap();
        assert!(deal(vec![SocketGroup { name: "a".into(), address, count: 1 }], Vec::new()).is_err());
    }
}
