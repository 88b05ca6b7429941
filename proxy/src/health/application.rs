//! The probes of the application's containers, as the pod's author wrote them.
//!
//! What is asked for is a name; where the probe goes stands in the setting alone. It goes where the kubelet's would have
//! gone: to the address at which the kubelet reached this pod, unless the probe names a host. Who asks for a probe that is
//! under way gets the same outcome: the application sees each probe once at a time, however many ask.

mod spec;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{HeaderValue, StatusCode};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

pub use spec::{AppProbes, ParseProbesError};
pub(super) use spec::{GrpcProbe, HttpProbe, Scheme};

use super::{grpc, http};
use spec::{Action, Probe};

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// With the status that the one who asked gets.
    Failed {
        status: StatusCode,
        reason: String,
    },
}

impl Outcome {
    /// Nothing of the application's own to tell.
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { status: StatusCode::SERVICE_UNAVAILABLE, reason: reason.into() }
    }
}

type UnderWay = HashMap<(String, IpAddr), WeakShared<BoxFuture<'static, Outcome>>>;

/// The application beside us.
#[derive(Debug, Clone)]
pub(super) struct Application {
    probes: Arc<AppProbes>,
    mark: Option<u32>,
    /// At most one for each probe and address: both are ours to list.
    under_way: Arc<Mutex<UnderWay>>,
}

impl Application {
    pub(super) fn new(probes: AppProbes, mark: Option<u32>) -> Self {
        Self { probes: Arc::new(probes), mark, under_way: Arc::default() }
    }

    /// Makes the probe of this name (`CONTAINER/PROBE`); `None` when there is none.
    pub(super) async fn probe(&self, name: &str, pod: IpAddr, asked_by: Option<&HeaderValue>) -> Option<Outcome> {
        let probe = self.probes.get(name)?;
        let outcome = self.shared(name, probe, pod, asked_by).await;
        Some(outcome)
    }

    /// The probe that is under way, or a new one.
    fn shared(
        &self,
        name: &str,
        probe: &Arc<Probe>,
        pod: IpAddr,
        asked_by: Option<&HeaderValue>,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), pod);
        // One that is over has no strong reference, or its outcome is old.
        let running = under_way.get(&key).and_then(WeakShared::upgrade).filter(|running| running.peek().is_none());
        if let Some(running) = running {
            return running;
        }
        let place = Place { pod, mark: self.mark };
        let new = run(name.to_owned(), Arc::clone(probe), place, asked_by.cloned()).boxed().shared();
        if let Some(weak) = new.downgrade() {
            under_way.insert(key, weak);
        }
        new
    }
}

async fn run(name: String, probe: Arc<Probe>, place: Place, asked_by: Option<HeaderValue>) -> Outcome {
    let action = async {
        match &probe.action {
            Action::Http(get) => http::get(get, &place, asked_by).await,
            Action::Tcp(target) => match place.connect(target.host.as_deref(), target.port).await {
                Ok(_) => Outcome::Passed,
                Err(reason) => Outcome::failed(reason),
            },
            Action::Sleep(wait) => {
                tokio::time::sleep(*wait).await;
                Outcome::Passed
            }
            Action::Grpc(check) => grpc::check(check, &place).await,
        }
    };
    let outcome = match tokio::time::timeout(probe.timeout, action).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::failed(format!("the application did not answer within {:?}", probe.timeout)),
    };
    let result = if outcome == Outcome::Passed { "passed" } else { "failed" };
    metrics::counter!("weft_app_probes_total", "probe" => name.clone(), "result" => result).increment(1);
    if let Outcome::Failed { status, reason } = &outcome {
        tracing::debug!(probe = name, %status, reason, "a probe of the application failed");
    }
    outcome
}

/// Where probes go out from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The address of this pod that was asked.
    pod: IpAddr,
    mark: Option<u32>,
}

impl Place {
    /// The host a probe means, as it stands in a URL.
    pub(super) fn host(&self, named: Option<&str>) -> String {
        let host = named.map_or_else(|| self.pod.to_string(), str::to_owned);
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host }
    }

    /// A connection to a port of the pod, or of the host that the probe names.
    pub(super) async fn connect(&self, named: Option<&str>, port: u16) -> Result<TcpStream, String> {
        let Some(name) = named else {
            let address = SocketAddr::new(self.pod, port);
            return self.dial(address).await.map_err(|error| format!("cannot connect to {address}: {error}"));
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let found = lookup_host((bare, port)).await.map_err(|error| format!("cannot resolve {name}: {error}"))?;
        let mut reason = format!("{name} has no address");
        for address in found {
            match self.dial(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => reason = format!("cannot connect to {address}: {error}"),
            }
        }
        Err(reason)
    }

    /// To the pod's own address from a loopback one: by that, capture tells it from a call of the workload to its own
    /// service, which would come back to us.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        if address.ip().to_canonical() == self.pod {
            let loopback: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            socket.bind(SocketAddr::new(loopback, 0))?;
        }
        socket.connect(address).await
    }
}
