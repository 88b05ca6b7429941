//! What is resumed, and what defeats it.

use rustls::client::ClientSessionStore;
use tokio::task::JoinHandle;

use super::*;
use crate::tls::testing::TestClock;

const DAY: Duration = Duration::from_hours(24);

/// A server that tells who it took, and of what kind the handshake was; its credentials can be replaced.
struct Server {
    address: SocketAddr,
    credentials: Arc<CredentialStore>,
    said: tokio::sync::mpsc::UnboundedReceiver<Result<(SpiffeId, HandshakeKind, NamedGroup), TlsError>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(credentials: Credentials) -> Self {
        let store = Arc::new(CredentialStore::new());
        store.publish(credentials);
        Self::of(store).await
    }

    async fn of(store: Arc<CredentialStore>) -> Self {
        let (listener, address) = listen().await;
        let (tell, said) = tokio::sync::mpsc::unbounded_channel();
        let current = Arc::clone(&store);
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let outcome = async {
                    let mut accepted = accept(&current.current().unwrap(), socket, LIMIT).await?;
                    // A client that refuses says so in its first words.
                    accepted.stream.write_u8(1).await?;
                    accepted.stream.read_u8().await?;
                    accepted.stream.shutdown().await?;
                    let (kind, group) = agreed(accepted.stream.get_ref().1);
                    Ok((accepted.peer, kind, group))
                };
                let _ = tell.send(outcome.await);
            }
        });
        Self { address, credentials: store, said, task }
    }

    /// What the client says, then what the server says, as proxies do it: once more where a ticket is not taken.
    async fn meet(&mut self, client: &MeshClient) -> (Result<HandshakeKind, TlsError>, Result<SpiffeId, TlsError>) {
        let (mut ours, mut theirs) = self.attempt(client).await;
        if matches!(ours, Err(TlsError::NotPostQuantum)) {
            assert!(theirs.is_err(), "the server goes on with a connection that the client refused");
            (ours, theirs) = self.attempt(client).await;
        }
        (ours.map(|(kind, _)| kind), theirs)
    }

    /// One connection. That a full handshake is post-quantum is asserted for every one that a test here makes.
    async fn attempt(
        &mut self,
        client: &MeshClient,
    ) -> (Result<(HandshakeKind, NamedGroup), TlsError>, Result<SpiffeId, TlsError>) {
        let ours = async {
            let socket = TcpStream::connect(self.address).await.unwrap();
            let mut stream = connect(client, self.address, socket, LIMIT).await?;
            stream.read_u8().await?;
            stream.write_u8(1).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            Ok(agreed(stream.get_ref().1))
        };
        let ours = ours.await;
        let theirs = self.said.recv().await.unwrap();
        if let (Ok(ours), Ok((_, kind, group))) = (&ours, &theirs) {
            assert_eq!(*ours, (*kind, *group), "the sides disagree");
            assert!(*kind == HandshakeKind::Resumed || *group == POST_QUANTUM, "{kind:?} with {group:?}");
        }
        (ours, theirs.map(|(peer, ..)| peer))
    }

    /// The kind of a connection both sides are content with, from `web`.
    async fn kind(&mut self, client: &MeshClient) -> HandshakeKind {
        let (kind, peer) = self.meet(client).await;
        assert_eq!(peer.unwrap(), web());
        kind.unwrap()
    }
}

fn agreed(state: &CommonState) -> (HandshakeKind, NamedGroup) {
    (state.handshake_kind().unwrap(), state.negotiated_key_exchange_group().unwrap().name())
}

#[tokio::test]
async fn a_second_connection_to_an_endpoint_resumes_and_the_server_still_knows_who_it_is() {
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    assert_eq!(server.kind(&client).await, HandshakeKind::Full);
    for _ in 0..3 {
        assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn where_resumption_is_off_every_connection_begins_with_a_full_handshake() {
    let root = TestRoot::new();
    let store = Arc::new(CredentialStore::without_resumption());
    store.publish(root.credentials(&orders()));
    let mut server = Server::of(store).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    for _ in 0..3 {
        assert_eq!(server.kind(&client).await, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn a_resumed_session_agrees_on_a_fresh_key_beneath_one_that_is_post_quantum() {
    // Why X25519 is enough then: see the module documentation of `ticket.rs`.
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    let (first, _) = server.attempt(&client).await;
    assert_eq!(first.unwrap(), (HandshakeKind::Full, NamedGroup::X25519MLKEM768));
    for _ in 0..3 {
        let (next, _) = server.attempt(&client).await;
        assert_eq!(next.unwrap(), (HandshakeKind::Resumed, NamedGroup::X25519));
    }
}

#[tokio::test]
async fn a_ticket_that_is_not_taken_ends_the_handshake_on_both_sides_and_the_next_is_post_quantum() {
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    // Several are held: none of them may be shown after the first was refused.
    let name = sessions::name_of(server.address);
    let mut tickets = Vec::new();
    for _ in 0..3 {
        server.attempt(&client).await.0.unwrap();
        tickets.extend(client.sessions.take_tls13_ticket(&name));
    }
    for ticket in tickets {
        client.sessions.insert_tls13_ticket(name.clone(), ticket);
    }
    assert_eq!(client.sessions.len(), 3);
    server.credentials.publish(root.credentials(&orders()));
    let (ours, theirs) = server.attempt(&client).await;
    assert!(matches!(ours.unwrap_err(), TlsError::NotPostQuantum));
    // Nothing was carried: the server's first word waits for its judgement, and the client's for the client's.
    assert!(theirs.is_err());
    let (ours, theirs) = server.attempt(&client).await;
    assert_eq!(ours.unwrap(), (HandshakeKind::Full, NamedGroup::X25519MLKEM768));
    assert_eq!(theirs.unwrap(), web());
}

#[tokio::test]
async fn a_ticket_of_one_endpoint_is_never_shown_to_another() {
    let root = TestRoot::new();
    let mut first = Server::start(root.credentials(&orders())).await;
    // The very same credentials: the second could read the first one's tickets.
    let mut second = Server::of(Arc::clone(&first.credentials)).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    assert_eq!(first.kind(&client).await, HandshakeKind::Full);
    assert_eq!(second.kind(&client).await, HandshakeKind::Full);
    assert_eq!(first.kind(&client).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_new_certificate_of_the_server_defeats_its_earlier_tickets() {
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    server.kind(&client).await;
    server.credentials.publish(root.credentials(&orders()));
    assert_eq!(server.kind(&client).await, HandshakeKind::Full);
    assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_new_certificate_of_the_client_shows_no_earlier_ticket() {
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    server.kind(&client_of(&root.credentials(&web()), &[orders()])).await;
    let client = client_of(&root.credentials(&web()), &[orders()]);
    assert_eq!(server.kind(&client).await, HandshakeKind::Full);
}

#[tokio::test]
async fn a_root_taken_out_of_the_bundle_defeats_the_sessions_of_its_clients() {
    let (old, new) = (TestRoot::new(), TestRoot::new());
    let both = [old.bundle(), new.bundle()].concat();
    let (chain, key) = new.leaf(&Leaf { uris: &[orders().as_str()], not_after: in_an_hour() });
    let mut server = Server::start(Credentials::new(chain.clone(), &key, both.clone()).unwrap()).await;
    let (client_chain, client_key) = old.leaf(&Leaf { uris: &[web().as_str()], not_after: in_an_hour() });
    let client = client_of(&Credentials::new(client_chain, &client_key, both).unwrap(), &[orders()]);
    server.kind(&client).await;
    assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);

    // The same certificate and key, without the old root.
    server.credentials.publish(Credentials::new(chain, &key, new.bundle()).unwrap());
    let (ours, theirs) = server.meet(&client).await;
    assert!(ours.is_err());
    assert!(matches!(theirs.unwrap_err(), TlsError::UnknownRoot));
}

#[tokio::test]
async fn an_identity_taken_out_of_the_cluster_defeats_its_sessions() {
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let credentials = root.credentials(&web());
    let before = client_of(&credentials, &[orders()]);
    server.kind(&before).await;
    let after = client_of(&credentials, &[SpiffeId::workload("shop.local", "default", "payments")]);
    let (ours, _) = server.meet(&after).await;
    assert!(matches!(ours.unwrap_err(), TlsError::Peer(PeerError::Unexpected { .. })));
}

#[tokio::test]
async fn a_resumed_server_is_held_against_the_identities_of_now() {
    // Should a session ever outlive its cluster's identities, the judgement after the handshake still refuses it.
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    let credentials = root.credentials(&web());
    let before = client_of(&credentials, &[orders()]);
    server.kind(&before).await;
    let now = client_of(&credentials, &[SpiffeId::workload("shop.local", "default", "payments")]);
    let mixed = MeshClient {
        config: Arc::clone(&before.config),
        resuming: Arc::clone(&before.resuming),
        sessions: Arc::clone(&before.sessions),
        servers: Arc::clone(&now.servers),
        opened: Arc::clone(&now.opened),
    };
    let (ours, _) = server.meet(&mixed).await;
    assert!(matches!(ours.unwrap_err(), TlsError::Peer(PeerError::Unexpected { .. })));
}

#[tokio::test]
async fn a_session_does_not_outlive_the_clients_certificate() {
    let root = TestRoot::new();
    let time = Arc::new(TestClock::default());
    let mut server = Server::start(root.credentials_at(&orders(), DAY, &time)).await;
    // The client's own clock stands still: it goes on showing its ticket.
    let still = Arc::new(TestClock::default());
    let client = client_of(&root.credentials_at(&web(), Duration::from_mins(30), &still), &[orders()]);
    server.kind(&client).await;
    time.advance(Duration::from_mins(29));
    assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);
    time.advance(Duration::from_mins(2));
    let (ours, theirs) = server.meet(&client).await;
    assert!(matches!(theirs.unwrap_err(), TlsError::Expired(_)));
    assert!(ours.is_err());
}

#[tokio::test]
async fn a_session_does_not_outlive_the_servers_certificate() {
    let root = TestRoot::new();
    let (time, still) = (Arc::new(TestClock::default()), Arc::new(TestClock::default()));
    // The server's clock stands still: it goes on taking its tickets.
    let mut server = Server::start(root.credentials_at(&orders(), Duration::from_mins(30), &still)).await;
    let client = client_of(&root.credentials_at(&web(), DAY, &time), &[orders()]);
    server.kind(&client).await;
    time.advance(Duration::from_mins(29));
    assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);
    time.advance(Duration::from_mins(2));
    let (ours, _) = server.meet(&client).await;
    assert!(matches!(ours.unwrap_err(), TlsError::Expired(_)));
}

#[tokio::test]
async fn a_ticket_is_good_for_an_hour_whatever_the_client_thinks() {
    let root = TestRoot::new();
    let (time, still) = (Arc::new(TestClock::default()), Arc::new(TestClock::default()));
    let mut server = Server::start(root.credentials_at(&orders(), DAY, &time)).await;
    let client = client_of(&root.credentials_at(&web(), DAY, &still), &[orders()]);
    server.kind(&client).await;
    time.advance(Duration::from_mins(59));
    assert_eq!(server.kind(&client).await, HandshakeKind::Resumed);
    time.advance(ticket::LIFETIME);
    assert_eq!(server.kind(&client).await, HandshakeKind::Full);
}

#[tokio::test]
async fn a_server_whose_certificate_is_over_gives_no_ticket() {
    use rustls::server::ProducesTickets;
    let time = Arc::new(TestClock::default());
    let tickets = ticket::Tickets::new(clock::wall() + Duration::from_mins(10), Arc::clone(&time) as _).unwrap();
    assert!((595..=600).contains(&tickets.lifetime()), "{}", tickets.lifetime());
    let made = tickets.encrypt(b"session").unwrap();
    assert_eq!(tickets.decrypt(&made).unwrap(), b"session");
    time.advance(Duration::from_mins(11));
    assert!(tickets.encrypt(b"session").is_none());
    assert!(tickets.decrypt(&made).is_none());
}

#[test]
fn a_ticket_that_was_touched_or_is_of_another_generation_opens_to_nobody() {
    use rustls::server::ProducesTickets;
    let tickets = || ticket::Tickets::new(in_an_hour(), Arc::new(TestClock::default())).unwrap();
    let (ours, other) = (tickets(), tickets());
    let made = ours.encrypt(b"session").unwrap();
    assert!(other.decrypt(&made).is_none());
    for at in 0..made.len() {
        let mut touched = made.clone();
        touched[at] ^= 1;
        assert!(ours.decrypt(&touched).is_none(), "byte {at}");
        assert!(ours.decrypt(&made[..at]).is_none(), "first {at} bytes");
    }
}

/// A client whose sessions are kept in `store`.
fn with_store(client: &MeshClient, store: &Arc<sessions::Sessions>) -> MeshClient {
    let with_store = |config: &ClientConfig| {
        let mut config = config.clone();
        config.resumption = rustls::client::Resumption::store(Arc::clone(store) as _);
        Arc::new(config)
    };
    MeshClient {
        config: with_store(&client.config),
        resuming: with_store(&client.resuming),
        sessions: Arc::clone(store),
        servers: Arc::clone(&client.servers),
        opened: Arc::clone(&client.opened),
    }
}

#[tokio::test]
async fn the_session_of_another_workload_is_not_offered_with_our_certificate() {
    // rustls ties a session to the key and verifier it was made with.
    let root = TestRoot::new();
    let mut server = Server::start(root.credentials(&orders())).await;
    // The thief sees all that the victim keeps.
    let store = Arc::new(sessions::Sessions::default());
    let with_store = |credentials: &Credentials| with_store(&client_of(credentials, &[orders()]), &store);
    let victim = with_store(&root.credentials(&web()));
    server.kind(&victim).await;
    assert_eq!(server.kind(&victim).await, HandshakeKind::Resumed);
    let thief = with_store(&root.credentials(&SpiffeId::workload("shop.local", "default", "thief")));
    let (kind, peer) = server.meet(&thief).await;
    assert_eq!(kind.unwrap(), HandshakeKind::Full);
    assert_eq!(peer.unwrap().service_account(), "thief");
}

#[tokio::test]
async fn a_known_certificate_is_remembered_only_after_it_verified_and_forgotten_when_it_ends() {
    let root = TestRoot::new();
    let time = Arc::new(TestClock::default());
    let still = Arc::new(TestClock::default());
    // Two servers that never resume each other's sessions, one client that knows their certificate.
    let mut server = Server::start(root.credentials_at(&orders(), Duration::from_mins(30), &still)).await;
    let credentials = root.credentials_at(&web(), DAY, &time);
    let foreign = TestRoot::new().credentials(&orders());
    let mut stranger = Server::start(foreign).await;
    let first = client_of(&credentials, &[orders()]);
    assert!(stranger.meet(&first).await.0.is_err());
    assert_eq!(first.servers.known.len(), 0, "a stranger is remembered");
    server.kind(&first).await;
    assert_eq!(first.servers.known.len(), 1);
    // Another cluster: no session, the same memory. It expects somebody else.
    let other = client_of(&credentials, &[SpiffeId::workload("shop.local", "default", "payments")]);
    assert!(matches!(server.meet(&other).await.0.unwrap_err(), TlsError::Peer(PeerError::Unexpected { .. })));
    time.advance(Duration::from_mins(31));
    let late = client_of(&credentials, &[orders()]);
    assert!(matches!(server.meet(&late).await.0.unwrap_err(), TlsError::Expired(_)));
}

#[tokio::test]
async fn as_many_tickets_are_kept_as_connections_begin_at_once_but_no_more_than_a_bound() {
    const MOST: usize = 12;
    let root = TestRoot::new();
    let credentials = Arc::new(root.credentials(&orders()));
    let store = Arc::new(sessions::Sessions::of(MOST));
    let client = with_store(&client_of(&root.credentials(&web()), &[orders()]), &store);
    let (listener, address) = listen().await;
    let endpoint = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
    // Opens connections to each of these at once, and reads the tickets when all are open; how many were resumed.
    let burst = async |ports: &[u16]| {
        let mut open = Vec::new();
        for port in ports {
            let socket = TcpStream::connect(address).await.unwrap();
            let (taken, _) = listener.accept().await.unwrap();
            let credentials = Arc::clone(&credentials);
            let served = tokio::spawn(async move {
                let mut accepted = accept(&credentials, taken, LIMIT).await.unwrap();
                accepted.stream.write_u8(1).await.unwrap();
                accepted
            });
            let stream = connect(&client, endpoint(*port), socket, LIMIT).await.unwrap();
            open.push((stream, served.await.unwrap()));
        }
        for (stream, _) in &mut open {
            // The ticket comes before the byte.
            stream.read_u8().await.unwrap();
        }
        open.iter().filter(|(stream, _)| agreed(stream.get_ref().1).0 == HandshakeKind::Resumed).count()
    };
    assert_eq!(burst(&[1; 8]).await, 0);
    assert_eq!(store.len(), 8);
    // A ticket each is used, and each brings another.
    for _ in 0..2 {
        assert_eq!(burst(&[1; 8]).await, 8);
        assert_eq!(store.len(), 8);
    }
    // More endpoints than there is room for: some are forgotten, whoever they are.
    burst(&(2..40).collect::<Vec<_>>()).await;
    assert!((MOST - 8..=MOST).contains(&store.len()), "{}", store.len());
    // One endpoint alone, beyond the bound.
    burst(&[50; MOST + 5]).await;
    assert_eq!(store.len(), MOST);
    assert_eq!(burst(&[50; MOST]).await, MOST);
}

#[test]
fn handshakes_are_counted_by_kind_and_failures_by_reason() {
    let registry = crate::telemetry::Registry::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&registry, || {
        runtime.block_on(async {
            let root = TestRoot::new();
            let mut server = Server::start(root.credentials(&orders())).await;
            let credentials = root.credentials(&web());
            let client = client_of(&credentials, &[orders()]);
            for _ in 0..3 {
                server.kind(&client).await;
            }
            assert!(server.meet(&client_of(&credentials, &[web()])).await.0.is_err());
        });
    });
    let text = registry.render(&crate::telemetry::Gauges::default());
    for line in [
        "weft_tls_handshakes_total{direction=\"inbound\",kind=\"full\"} 1",
        "weft_tls_handshakes_total{direction=\"inbound\",kind=\"resumed\"} 2",
        "weft_tls_handshakes_total{direction=\"outbound\",kind=\"full\"} 1",
        "weft_tls_handshakes_total{direction=\"outbound\",kind=\"resumed\"} 2",
        "weft_tls_handshake_failures_total{direction=\"outbound\",reason=\"identity\"} 1",
        "weft_tls_handshake_failures_total{direction=\"inbound\",reason=\"refused-by-peer\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
