use std::io::Write;
use std::net::TcpListener;

use super::*;
use crate::supervise::channel;
use crate::supervise::message::{ListenerName, kind};
use crate::testing::PATIENCE;

/// A proxy's link, and the supervisor's end of it.
fn linked() -> (Supervisor, mpsc::Receiver<Order>, UnixDatagram, Channel) {
    let (ours, theirs) = channel::pair().unwrap();
    let (supervisor, orders) = join_at(theirs).unwrap();
    let waiting_on = StdUnixDatagram::from(ours.as_fd().try_clone_to_owned().unwrap());
    waiting_on.set_nonblocking(true).unwrap();
    (supervisor, orders, UnixDatagram::from_std(waiting_on).unwrap(), ours)
}

/// What the proxy says next.
async fn heard(waiting_on: &UnixDatagram, ours: &Channel) -> (FromProxy, Vec<OwnedFd>) {
    let receive = || match ours.receive().unwrap() {
        Received::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        Received::Message(message, descriptors) => Ok((message, descriptors)),
        other => panic!("{other:?}"),
    };
    tokio::time::timeout(PATIENCE, waiting_on.async_io(Interest::READABLE, receive)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_replacement_is_answered_when_the_other_one_serves_or_cannot() {
    let (supervisor, mut orders, waiting_on, ours) = linked();
    assert!(matches!(heard(&waiting_on, &ours).await.0, FromProxy::Hello { protocol: PROTOCOL, .. }));
    let refused = ToProxy::Refused { why: Why::Late, reason: "no certificate".to_owned() };
    for (told, is_replaced) in [(refused, false), (ToProxy::Drain, true)] {
        let counts = Counts { refused: 1, ..Counts::default() };
        let mut program = tempfile::tempfile().unwrap();
        program.write_all(b"a program").unwrap();
        let asking = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { supervisor.replace(program).await }
        });
        let (message, descriptors) = heard(&waiting_on, &ours).await;
        assert_eq!((message, descriptors.len()), (FromProxy::Replace, 1));
        // A second one is not even asked for.
        let second = supervisor.replace(tempfile::tempfile().unwrap()).await;
        assert!(matches!(second, Err(ReplaceError::Refused { why: Why::Busy, .. })), "{second:?}");
        ours.send(&told, &[]).unwrap();
        ours.send(&ToProxy::Counted(counts), &[]).unwrap();
        match asking.await.unwrap() {
            Ok(()) => assert!(is_replaced),
            Err(ReplaceError::Refused { why, reason }) => {
                assert_eq!((why, reason.as_str(), is_replaced), (Why::Late, "no certificate", false));
            }
            Err(other) => panic!("{other}"),
        }
        if is_replaced {
            assert!(matches!(orders.recv().await, Some(Order::Drain)));
        }
        assert!(matches!(orders.recv().await, Some(Order::Counted(found)) if found == counts));
    }
}

#[tokio::test]
async fn more_listeners_than_a_packet_holds_travel_in_order() {
    let (supervisor, mut orders, waiting_on, ours) = linked();
    heard(&waiting_on, &ours).await;
    let count = MAX_DESCRIPTORS * 2 + 1;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = |number| ListenerName { kind: kind::OUTBOUND, address: format!("a:{number}"), fixed: String::new() };
    let copy = || listener.as_fd().try_clone_to_owned().unwrap();
    supervisor.give((0..count).map(|number| Inherited { name: name(number), socket: copy() }).collect()).await;
    let mut found = Vec::new();
    loop {
        let (FromProxy::Listeners(batch), sockets) = heard(&waiting_on, &ours).await else { panic!() };
        assert_eq!(batch.names.len(), sockets.len());
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        // Back the way they came.
        ours.send(&ToProxy::TakeOver(batch.clone()), &sockets).unwrap();
        found.extend(batch.names);
        if batch.is_last {
            break;
        }
    }
    assert_eq!(found, (0..count).map(name).collect::<Vec<_>>());
    let Some(Order::TakeOver(inherited)) = orders.recv().await else { panic!() };
    assert_eq!(inherited.into_iter().map(|inherited| inherited.name).collect::<Vec<_>>(), found);
}

#[tokio::test]
async fn a_supervisor_that_is_gone_leaves_no_question_open() {
    let (supervisor, mut orders, waiting_on, ours) = linked();
    heard(&waiting_on, &ours).await;
    let asking = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.replace(tempfile::tempfile().unwrap()).await }
    });
    heard(&waiting_on, &ours).await;
    drop((waiting_on, ours));
    assert!(matches!(asking.await.unwrap(), Err(ReplaceError::Gone)));
    assert!(matches!(orders.recv().await, Some(Order::Gone)));
    assert!(matches!(supervisor.replace(tempfile::tempfile().unwrap()).await, Err(ReplaceError::Gone)));
    // It learns nothing, and nobody waits for it.
    supervisor.say(FromProxy::Serving).await;
}
