//! Real handshakes over loopback.

mod resumption;

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{Leaf, TestRoot};
use super::*;
use crate::clock;

const LIMIT: Duration = Duration::from_secs(5);

fn orders() -> SpiffeId {
    SpiffeId::workload("shop.local", "default", "orders")
}

fn web() -> SpiffeId {
    SpiffeId::workload("shop.local", "default", "web")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What both sides say of one connection: the server writes its name for the client and echoes one byte.
struct Outcome {
    server: Result<(SpiffeId, MeshProtocol), TlsError>,
    client: Result<SpiffeId, TlsError>,
}

/// One connection with `config` to a server with `credentials`.
async fn meet(credentials: Credentials, config: Arc<MeshClient>) -> Outcome {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut accepted = accept(&credentials, socket, LIMIT).await?;
        let byte = accepted.stream.read_u8().await?;
        accepted.stream.write_u8(byte).await?;
        accepted.stream.shutdown().await?;
        Ok((accepted.peer, accepted.protocol))
    });
    let client = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut stream = connect(&config, address, socket, LIMIT).await?;
        // A refusal may arrive before this is written; the reason is in what is read.
        let _ = stream.write_u8(7).await;
        assert_eq!(stream.read_u8().await?, 7);
        let state = stream.get_ref().1;
        assert_eq!(state.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        Ok(peer_identity(state).unwrap())
    };
    let client = client.await;
    Outcome { server: server.await.unwrap(), client }
}

/// The way a mesh client goes: from its credentials.
fn client_of(credentials: &Credentials, expected: &[SpiffeId]) -> Arc<MeshClient> {
    credentials.client_config(expected, ALPN_HTTP1)
}

/// A client that presents what it likes and believes everything.
fn bold_client(
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    root: &TestRoot,
    alpn: &[&[u8]],
) -> Arc<MeshClient> {
    let mut roots = RootCertStore::empty();
    roots.add(root.bundle().remove(0)).unwrap();
    let servers = Arc::new(verify::MeshServers {
        roots: Arc::new(roots),
        trust_domain: "shop.local".into(),
        expected: [orders()].into(),
        known: Arc::default(),
    });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&servers) as _);
    let mut config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(without_sessions(config, servers))
}

/// A client that never shows a ticket.
fn without_sessions(config: ClientConfig, servers: Arc<verify::MeshServers>) -> MeshClient {
    let (config, opened) = (Arc::new(config), Arc::new(signals::Handshakes::new("outbound")));
    MeshClient { resuming: Arc::clone(&config), config, sessions: Arc::default(), servers, opened }
}

fn in_an_hour() -> SystemTime {
    clock::wall() + Duration::from_hours(1)
}

#[tokio::test]
async fn two_workloads_of_one_mesh_meet_and_know_each_other() {
    let root = TestRoot::new();
    for protocol in [MeshProtocol::Http1, MeshProtocol::Tcp, MeshProtocol::Detect] {
        let config = root.credentials(&web()).client_config(&[orders()], protocol.alpn());
        let outcome = meet(root.credentials(&orders()), config).await;
        assert_eq!(outcome.server.unwrap(), (web(), protocol));
        assert_eq!(outcome.client.unwrap(), orders());
    }
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let root = TestRoot::new();
    let (listener, address) = listen().await;
    let credentials = root.credentials(&orders());
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        accept(&credentials, socket, LIMIT).await.unwrap()
    });
    let config = client_of(&root.credentials(&web()), &[orders()]);
    let stream = connect(&config, address, TcpStream::connect(address).await.unwrap(), LIMIT).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    server.await.unwrap();
}

#[tokio::test]
async fn a_full_handshake_without_a_post_quantum_key_is_refused_by_both_sides() {
    let classical = || {
        let kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        Arc::new(CryptoProvider { kx_groups, ..CryptoProvider::clone(&provider()) })
    };
    let root = TestRoot::new();
    let (orders, web) = (root.credentials(&orders()), root.credentials(&web()));

    let ours = client_of(&web, std::slice::from_ref(&orders.identity));
    let mut config = ClientConfig::builder_with_provider(classical())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&ours.servers) as _)
        .with_client_cert_resolver(web.own() as _);
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    let client = Arc::new(without_sessions(config, Arc::clone(&ours.servers)));
    let outcome = meet(root.credentials(&orders.identity), client).await;
    assert!(matches!(outcome.server.unwrap_err(), TlsError::NotPostQuantum));
    assert!(matches!(outcome.client.unwrap_err(), TlsError::NotPostQuantum));

    let (listener, address) = listen().await;
    let mut config = rustls::ServerConfig::builder_with_provider(classical())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::clone(&orders.clients) as _)
        .with_cert_resolver(orders.own() as _);
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        // It may be done before the client has gone.
        let _ = TlsAcceptor::from(Arc::new(config)).accept(socket).await;
    });
    let socket = TcpStream::connect(address).await.unwrap();
    assert!(matches!(connect(&ours, address, socket, LIMIT).await.unwrap_err(), TlsError::NotPostQuantum));
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused_and_both_are_named() {
    let root = TestRoot::new();
    let expected = [web(), SpiffeId::workload("shop.local", "default", "payments")];
    let outcome = meet(root.credentials(&orders()), client_of(&root.credentials(&web()), &expected)).await;
    let error = outcome.client.unwrap_err();
    assert!(matches!(&error, TlsError::Peer(PeerError::Unexpected { found, .. }) if *found == orders()), "{error:?}");
    for name in ["sa/orders", "sa/web", "sa/payments"] {
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(matches!(outcome.server.unwrap_err(), TlsError::RefusedByPeer { .. } | TlsError::Closed));
}

#[tokio::test]
async fn a_cluster_without_identities_reaches_nobody() {
    let root = TestRoot::new();
    let outcome = meet(root.credentials(&orders()), client_of(&root.credentials(&web()), &[])).await;
    assert!(matches!(outcome.client.unwrap_err(), TlsError::Peer(PeerError::Unexpected { .. })));
}

#[tokio::test]
async fn another_trust_domain_is_refused_by_both_sides_even_under_our_root() {
    let root = TestRoot::new();
    let stranger = SpiffeId::workload("elsewhere.local", "default", "orders");
    // As a client.
    let (chain, key) = root.leaf(&Leaf { uris: &[stranger.as_str()], not_after: in_an_hour() });
    let outcome = meet(root.credentials(&orders()), bold_client(Some((chain, key)), &root, &[ALPN_HTTP1])).await;
    let error = outcome.server.unwrap_err();
    assert!(matches!(&error, TlsError::Peer(PeerError::WrongTrustDomain { .. })), "{error:?}");
    assert!(error.to_string().contains("elsewhere.local") && error.to_string().contains("shop.local"), "{error}");
    assert!(outcome.client.is_err());
    // As a server, even if the cluster expects it by name.
    let config = client_of(&root.credentials(&web()), std::slice::from_ref(&stranger));
    let outcome = meet(root.credentials(&stranger), config).await;
    assert!(matches!(outcome.client.unwrap_err(), TlsError::Peer(PeerError::WrongTrustDomain { .. })));
}

#[tokio::test]
async fn another_root_is_refused_by_both_sides() {
    let (ours, theirs) = (TestRoot::new(), TestRoot::new());
    let outcome = meet(ours.credentials(&orders()), client_of(&theirs.credentials(&web()), &[orders()])).await;
    assert!(matches!(outcome.client.unwrap_err(), TlsError::UnknownRoot));
    let (chain, key) = theirs.leaf(&Leaf { uris: &[web().as_str()], not_after: in_an_hour() });
    let outcome = meet(ours.credentials(&orders()), bold_client(Some((chain, key)), &ours, &[ALPN_HTTP1])).await;
    let error = outcome.server.unwrap_err();
    assert!(matches!(error, TlsError::UnknownRoot), "{error:?}");
    assert!(outcome.client.is_err());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_sides() {
    let root = TestRoot::new();
    let over = clock::wall() - Duration::from_mins(1);
    let (chain, key) = root.leaf(&Leaf { uris: &[web().as_str()], not_after: over });
    let outcome = meet(root.credentials(&orders()), bold_client(Some((chain, key)), &root, &[ALPN_HTTP1])).await;
    let error = outcome.server.unwrap_err();
    assert!(matches!(error, TlsError::Expired(_)), "{error:?}");
    let explained = outcome.client.unwrap_err().to_string();
    assert!(explained.contains("our certificate has expired"), "{explained}");

    let (chain, key) = root.leaf(&Leaf { uris: &[orders().as_str()], not_after: over });
    let expired = Credentials::new(chain, &key, root.bundle()).unwrap();
    let outcome = meet(expired, client_of(&root.credentials(&web()), &[orders()])).await;
    assert!(matches!(outcome.client.unwrap_err(), TlsError::Expired(_)));
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let root = TestRoot::new();
    let outcome = meet(root.credentials(&orders()), bold_client(None, &root, &[ALPN_HTTP1])).await;
    let error = outcome.server.unwrap_err();
    assert!(matches!(error, TlsError::NoCertificate), "{error:?}");
    let explained = outcome.client.unwrap_err().to_string();
    assert!(explained.contains("it wants a certificate"), "{explained}");
}

type IsExpected = fn(&PeerError) -> bool;

#[tokio::test]
async fn a_certificate_must_carry_exactly_one_workload_identity() {
    let root = TestRoot::new();
    let (ours, other) = (web(), orders());
    let cases: [(&[&str], IsExpected); 4] = [
        (&[], |error| *error == PeerError::NoIdentity),
        (&[ours.as_str(), other.as_str()], |error| *error == PeerError::SeveralIdentities(2)),
        (&[ours.as_str(), "https://shop.local"], |error| *error == PeerError::SeveralIdentities(2)),
        (&["spiffe://shop.local/web"], |error| matches!(error, PeerError::NotWorkload(_))),
    ];
    for (uris, is_expected) in cases {
        let (chain, key) = root.leaf(&Leaf { uris, not_after: in_an_hour() });
        assert!(Credentials::new(chain.clone(), &key, root.bundle()).is_err(), "{uris:?} made credentials");
        let outcome = meet(root.credentials(&orders()), bold_client(Some((chain, key)), &root, &[ALPN_HTTP1])).await;
        match outcome.server.unwrap_err() {
            TlsError::Peer(error) => assert!(is_expected(&error), "{uris:?}: {error:?}"),
            error => panic!("{uris:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_offers_no_protocol_of_ours_is_refused() {
    let root = TestRoot::new();
    let offers: [&[&[u8]]; 2] = [&[b"h2"], &[]];
    for alpn in offers {
        let certificate = root.leaf(&Leaf { uris: &[web().as_str()], not_after: in_an_hour() });
        let outcome = meet(root.credentials(&orders()), bold_client(Some(certificate), &root, alpn)).await;
        let error = outcome.server.unwrap_err();
        assert!(matches!(error, TlsError::NoProtocol), "{alpn:?}: {error:?}");
        assert!(outcome.client.is_err());
    }
}

/// What the server says of raw bytes, and the first bytes it sends back.
async fn greet_with(bytes: &[u8]) -> (TlsError, Vec<u8>) {
    let credentials = TestRoot::new().credentials(&orders());
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        accept(&credentials, socket, LIMIT).await.unwrap_err()
    });
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // The server may reset instead of closing; what it said before is what counts.
    let _ = tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await.unwrap();
    (server.await.unwrap(), answer)
}

#[tokio::test]
async fn plaintext_is_refused() {
    let (error, _) = greet_with(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await;
    assert!(matches!(error, TlsError::NotTls), "{error:?}");
}

#[tokio::test]
async fn a_client_of_tls_1_2_alone_is_refused_with_protocol_version() {
    // A ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2): no `supported_versions`, one ECDHE suite, P-256.
    let extensions =
        [&[0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17][..], &[0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03][..]]
            .concat();
    let mut body = vec![0x03, 0x03];
    body.extend([0x5a; 32]);
    body.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(&extensions);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([0x01, 0x00]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(&body);

    let (error, answer) = greet_with(&record).await;
    assert!(matches!(error, TlsError::Version(_)), "{error:?}");
    // Alert, fatal, protocol_version.
    assert_eq!(answer, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70]);
}

#[tokio::test]
async fn a_silent_client_is_given_up_after_the_limit() {
    let credentials = TestRoot::new().credentials(&orders());
    let (listener, address) = listen().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let limit = Duration::from_millis(20);
    assert!(matches!(accept(&credentials, socket, limit).await.unwrap_err(), TlsError::TimedOut(_)));
}

#[tokio::test]
async fn a_rotation_leaves_open_connections_alone_and_new_ones_use_the_new_certificate() {
    let root = TestRoot::new();
    let store = Arc::new(CredentialStore::new());
    assert_eq!(store.publish(root.credentials(&orders())), 1);
    let (listener, address) = listen().await;
    let served = Arc::clone(&store);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let credentials = served.current().unwrap();
            tokio::spawn(async move {
                let accepted = accept(&credentials, socket, LIMIT).await.map_err(io::Error::other)?;
                let (mut read, mut write) = tokio::io::split(accepted.stream);
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let config = client_of(&root.credentials(&web()), &[orders()]);
    let dial = async || connect(&config, address, TcpStream::connect(address).await.unwrap(), LIMIT).await;
    // The ticket of the first connection is shown to the second, in vain.
    let open = async || match dial().await {
        Err(TlsError::NotPostQuantum) => dial().await.unwrap(),
        outcome => outcome.unwrap(),
    };
    let leaf = |stream: &client::TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();

    let mut old = open().await;
    old.write_u8(1).await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), 1);
    assert_eq!(store.publish(root.credentials(&orders())), 2);
    let mut new = open().await;
    assert_ne!(leaf(&old), leaf(&new));
    for byte in 2..5 {
        for stream in [&mut old, &mut new] {
            stream.write_u8(byte).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), byte);
        }
    }
}

#[tokio::test]
async fn who_waits_for_credentials_gets_the_first_ones() {
    let store = Arc::new(CredentialStore::new());
    assert!(store.current().is_none());
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.ready().await.generation }
    });
    store.publish(TestRoot::new().credentials(&orders()));
    assert_eq!(tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap(), 1);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let root = TestRoot::new();
    let leaf = || root.leaf(&Leaf { uris: &["spiffe://shop.local/ns/default/sa/web"], not_after: in_an_hour() });
    let ((chain, _), (_, key)) = (leaf(), leaf());
    assert!(matches!(Credentials::new(chain, &key, root.bundle()), Err(CredentialsError::Key(_))));
}

#[test]
fn an_empty_bundle_is_refused() {
    let root = TestRoot::new();
    let (chain, key) = root.leaf(&Leaf { uris: &[web().as_str()], not_after: in_an_hour() });
    assert!(matches!(Credentials::new(chain, &key, Vec::new()), Err(CredentialsError::EmptyBundle)));
}

#[test]
fn credentials_print_no_key() {
    let root = TestRoot::new();
    let (chain, key) = root.leaf(&Leaf { uris: &[web().as_str()], not_after: in_an_hour() });
    let store = CredentialStore::new();
    store.publish(Credentials::new(chain, &key, root.bundle()).unwrap());
    let credentials = store.current().unwrap();
    // The secret scalar of a P-256 key in PKCS#8 begins at byte 36.
    let secret = &key.secret_der()[36..68];
    let config = client_of(&credentials, &[orders()]);
    for printed in
        [format!("{store:?}"), format!("{credentials:#?}"), format!("{config:?}"), format!("{:?}", credentials.server)]
    {
        let as_list = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let as_hex = secret.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        assert!(!printed.contains(&as_list) && !printed.contains(&as_hex), "{printed}");
    }
    assert!(format!("{credentials:?}").contains("sa/web"));
}
