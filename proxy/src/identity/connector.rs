//! Connections to the control plane: TCP with our mark, TLS by our rules, gRPC on top.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use weft_proto::names::CONTROL_PLANE_DNS;

use super::resolve::addresses;
use super::{IdentityError, Options};
use crate::clock;
use crate::tls::{self, CredentialStore, Credentials, CredentialsError, TlsError};

/// Resolving, connecting and the handshake together.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A stream without news is proved alive this often...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ...and given up after this long: a control plane that is cut off is missed after 13 s at the latest.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(3);

/// A channel for ADS: mutual TLS with the certificate in force, checked for life while idle.
///
/// It connects before it returns. When it has to connect again it presents the certificate in force then.
pub async fn channel(options: &Options, store: &Arc<CredentialStore>) -> Result<Channel, IdentityError> {
    let (dialled, store) = (options.clone(), Arc::clone(store));
    connect(options, move || {
        let (options, store) = (dialled.clone(), Arc::clone(&store));
        async move {
            let credentials = store.current().ok_or(IdentityError::NoCertificate)?;
            if credentials.expires_at <= clock::wall() {
                return Err(IdentityError::Expired(credentials.identity.clone()));
            }
            dial(&options, Some(&credentials)).await
        }
    })
    .await
}

/// A channel for one request, with or without a certificate.
pub(super) async fn open(options: &Options, certificate: Option<&Credentials>) -> Result<Channel, IdentityError> {
    // Dialled here for the sake of its typed errors; the connector hands it over once.
    let stream = dial(options, certificate).await?;
    let mut stream = Some(stream);
    connect(options, move || {
        let stream = stream.take();
        async move { stream.ok_or(IdentityError::NoCertificate) }
    })
    .await
}

async fn connect<D, F>(options: &Options, mut dial: D) -> Result<Channel, IdentityError>
where
    D: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<TlsStream<TcpStream>, IdentityError>> + Send + 'static,
{
    let connector = tower::service_fn(move |_: Uri| {
        let stream = dial();
        async move { stream.await.map(TokioIo::new) }
    });
    endpoint()
        .connect_with_connector(connector)
        .await
        .map_err(|source| IdentityError::Transport { address: options.control_plane.clone(), source })
}

fn endpoint() -> Endpoint {
    // `http`, as tonic refuses `https` without its own TLS; the connector brings ours.
    let uri = Uri::builder()
        .scheme("http")
        .authority(CONTROL_PLANE_DNS)
        .path_and_query("/")
        .build()
        .expect("a constant that is an authority");
    Endpoint::from(uri)
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true)
}

/// Opens a TLS connection to the control plane.
async fn dial(options: &Options, certificate: Option<&Credentials>) -> Result<TlsStream<TcpStream>, IdentityError> {
    let address = || options.control_plane.clone();
    let opening = async {
        let config = client_config(&trusted(options, certificate).await?, certificate)?;
        let stream = reach(options).await?;
        let name = ServerName::try_from(CONTROL_PLANE_DNS).expect("a constant that is a DNS name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| IdentityError::Tls { address: address(), source: TlsError::from(error) })
    };
    tokio::time::timeout(CONNECT_LIMIT, opening)
        .await
        .map_err(|_| IdentityError::TimedOut { address: address(), limit: CONNECT_LIMIT })?
}

/// The first of the control plane's addresses that takes a connection.
async fn reach(options: &Options) -> Result<TcpStream, IdentityError> {
    let name = &options.control_plane;
    // Anew for each connection: replicas come and go.
    let addresses = addresses(name).await;
    let addresses = addresses.map_err(|source| IdentityError::Resolve { address: name.clone(), source })?;
    reach_any(name, &addresses, options.socket_mark).await
}

async fn reach_any(name: &str, addresses: &[SocketAddr], mark: Option<u32>) -> Result<TcpStream, IdentityError> {
    // Each gets its share, so that one that swallows packets does not hide the others.
    let share = CONNECT_LIMIT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = IdentityError::NoAddress(name.to_owned());
    for address in addresses {
        match reach_one(*address, mark, share).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn reach_one(address: SocketAddr, mark: Option<u32>, limit: Duration) -> Result<TcpStream, IdentityError> {
    let failed = |source| IdentityError::Connect { address: address.to_string(), source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    if let Some(mark) = mark {
        // Before connecting: the first packet is the one that capture would redirect.
        socket2::SockRef::from(&socket).set_mark(mark).map_err(|source| IdentityError::Mark { mark, source })?;
    }
    let stream = tokio::time::timeout(limit, socket.connect(address))
        .await
        .map_err(|_| IdentityError::TimedOut { address: address.to_string(), limit })?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// The roots a control plane may chain to: those we were given, and those it last sent us, which know of a new root
/// before the others do.
async fn trusted(
    options: &Options,
    certificate: Option<&Credentials>,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut roots = certificate.map(|credentials| credentials.bundle().to_vec()).unwrap_or_default();
    match options.bundle.read().await {
        Ok(given) => {
            let known = roots.len();
            roots.extend(given);
            // A root in both would be tried twice.
            for index in (known..roots.len()).rev() {
                if roots[..index].contains(&roots[index]) {
                    roots.swap_remove(index);
                }
            }
            Ok(roots)
        }
        Err(error) if roots.is_empty() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the bundle file is not readable, trusting the roots last received");
            Ok(roots)
        }
    }
}

/// Server verified by root and DNS name; our certificate presented if there is one.
fn client_config(
    trusted: &[CertificateDer<'static>],
    certificate: Option<&Credentials>,
) -> Result<ClientConfig, CredentialsError> {
    let roots = Arc::new(tls::trust_anchors(trusted)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, tls::provider()).build()?;
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("our provider has suites and groups of TLS 1.3")
        .with_webpki_verifier(verifier);
    let mut config = match certificate {
        Some(credentials) => builder.with_client_cert_resolver(credentials.own()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A new connection shall present the certificate in force, not remember an older one.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn control_connections_carry_the_mark_or_say_what_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match reach_one(address, Some(0x3e1), CONNECT_LIMIT).await {
            Ok(stream) => assert_eq!(socket2::SockRef::from(&stream).mark().unwrap(), 0x3e1),
            Err(error) => assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}"),
        }
    }

    #[tokio::test]
    async fn a_replica_that_is_gone_does_not_hide_the_next() {
        // Bound and not listening: nobody else can take the port meanwhile.
        let gone = TcpSocket::new_v4().unwrap();
        gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (first, second) = (gone.local_addr().unwrap(), listener.local_addr().unwrap());
        for addresses in [[first, second], [second, first]] {
            let reached = reach_any("replicas:1", &addresses, None).await.unwrap();
            assert_eq!(reached.peer_addr().unwrap(), second);
        }
        assert!(reach_any("replicas:1", &[first], None).await.is_err());
        let nowhere = reach_any("replicas:1", &[], None).await.unwrap_err();
        assert!(matches!(nowhere, IdentityError::NoAddress(_)), "{nowhere}");
    }

    #[tokio::test]
    async fn a_control_plane_nobody_listens_for_is_named() {
        // Bound and not listening: nobody else can take the port meanwhile.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let error = reach_one(address, None, CONNECT_LIMIT).await.unwrap_err();
        assert!(matches!(error, IdentityError::Connect { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
