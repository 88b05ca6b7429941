//! Worker threads: one runtime each, its own listeners, pool and connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use weft_core::model::Direction;

use crate::accept::{self, Accepting};
use crate::config::Settings;
use crate::pool::Pool;
use crate::state::Store;
use crate::tls::CredentialStore;
use crate::worker::Worker;

/// Descriptors left to everything that is not a connection.
const RESERVED_DESCRIPTORS: u64 = 64;
/// How often a draining worker counts what is left.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// How often a replaced worker does. 100 ms: it has minutes.
const REPLACED_CHECK: Duration = Duration::from_millis(100);
/// Until a replaced proxy closes idle connections of HTTP/1.1, whose clients cannot be told before. 15 s: clients that make
/// requests hear of it with an answer within that time; those that do not risk no more than with any idle timeout.
const IDLE_LEFT: Duration = Duration::from_secs(15);

/// How a proxy stops taking connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Not at all yet.
    Serving,
    /// Another proxy takes them: nobody waits for us.
    Replaced,
    /// Nobody takes them any more: first inbound, then outbound.
    Leaving,
}

/// One address; bound once per worker, unless the sockets were inherited from a proxy with another number of workers.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) direction: Direction,
    /// As the settings say it.
    pub(super) address: SocketAddr,
    pub(super) fixed: Option<SocketAddr>,
    pub(super) sockets: Vec<TcpListener>,
}

impl Bound {
    pub(super) fn port(&self) -> Option<u16> {
        self.sockets.first()?.local_addr().ok().map(|address| address.port())
    }
}

/// The running workers.
#[derive(Debug)]
pub(super) struct Threads {
    pace: watch::Sender<Pace>,
    /// Closed when every worker has ended.
    ended: mpsc::Receiver<()>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(
        settings: &Settings,
        bound: Vec<Bound>,
        store: &Arc<Store>,
        credentials: &Arc<CredentialStore>,
        descriptors: u64,
    ) -> io::Result<Self> {
        let count = settings.worker_count();
        let own_ports = own_ports(&bound)?;
        let allowed = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2;
        let limit = settings.tuning.connections(allowed, count);
        tell_limits(settings, limit * count);
        let (pace, paced) = watch::channel(Pace::Serving);
        let (alive, ended) = mpsc::channel(1);
        let mut handles = Vec::with_capacity(count);
        for (index, sockets) in deal(bound, count).into_iter().enumerate() {
            let (store, credentials) = (Arc::clone(store), Arc::clone(credentials));
            let (own_ports, mark) = (own_ports.clone(), settings.socket_mark);
            let (paced, alive) = (paced.clone(), alive.clone());
            let tuning = settings.tuning.clone();
            let networks = settings.virtual_networks.clone();
            let workload = format!("{}/{}", settings.namespace, settings.workload);
            handles.push(thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let mut worker = Worker::new(store, credentials, own_ports, mark, fastrand::Rng::new());
                worker.workload = workload;
                worker.virtual_networks = networks;
                worker.timeouts = tuning.timeouts();
                worker.limits = tuning.limits(count);
                worker.pool = Pool::new(tuning.idle_times());
                if let Err(error) = run(Rc::new(worker), sockets, paced, limit) {
                    tracing::error!(%error, "a worker could not run");
                }
                drop(alive);
            })?);
        }
        Ok(Self { pace, ended, handles })
    }

    /// Stops taking connections.
    pub(super) fn stop(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Waits for the connections to end, for at most `limit`.
    pub(super) async fn ended(&mut self, limit: Duration) {
        if tokio::time::timeout(limit, self.ended.recv()).await.is_err() {
            tracing::warn!(seconds = limit.as_secs(), "connections were still open at the end of the drain");
            return;
        }
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

/// Limits stand in the metrics beside what they limit.
fn tell_limits(settings: &Settings, connections: usize) {
    metrics::gauge!("weft_connections_limit").set(connections as f64);
    metrics::gauge!("weft_buffered_bytes_limit").set(settings.tuning.max_buffered_bytes as f64);
}

fn own_ports(bound: &[Bound]) -> io::Result<Vec<u16>> {
    let mut ports = Vec::new();
    for socket in bound.iter().filter_map(|bound| bound.sockets.first()) {
        ports.push(socket.local_addr()?.port());
    }
    Ok(ports)
}

type Socket = (Direction, Option<SocketAddr>, TcpListener);

/// What each of `count` workers listens on. Every socket is somebody's: the kernel gives connections to all of them.
fn deal(bound: Vec<Bound>, count: usize) -> Vec<Vec<Socket>> {
    let mut hands: Vec<Vec<Socket>> = (0..count).map(|_| Vec::new()).collect();
    for Bound { direction, fixed, sockets, .. } in bound {
        for (number, socket) in sockets.into_iter().enumerate() {
            hands[number % count].push((direction, fixed, socket));
        }
    }
    hands
}

fn run(worker: Rc<Worker>, sockets: Vec<Socket>, paced: watch::Receiver<Pace>, limit: usize) -> io::Result<()> {
    // Local itself: a `LocalSet` inside a runtime would queue every wake-up twice, the second time behind a lock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let mut accepting = Vec::with_capacity(sockets.len());
        for (direction, fixed, socket) in sockets {
            let listener = Accepting { listener: tokio::net::TcpListener::from_std(socket)?, direction, fixed };
            let (close, closing) = watch::channel(false);
            let task = tokio::task::spawn_local(accept_until(Rc::clone(&worker), listener, limit, closing));
            accepting.push((direction, close, task));
        }
        drain(&worker, paced, accepting).await;
        Ok(())
    })
}

/// Accepts until told to close; what the kernel has accepted for us by then is taken first.
async fn accept_until(worker: Rc<Worker>, listener: Accepting, limit: usize, mut closing: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = accept::serve(worker, listener, limit) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

type Acceptors = Vec<(Direction, watch::Sender<bool>, tokio::task::JoinHandle<()>)>;

/// Waits for the drain, then for the connections.
async fn drain(worker: &Worker, mut paced: watch::Receiver<Pace>, accepting: Acceptors) {
    let Ok(pace) = paced.wait_for(|pace| *pace != Pace::Serving).await.map(|pace| *pace) else { return };
    match pace {
        Pace::Replaced => replaced(worker, paced, accepting).await,
        Pace::Leaving | Pace::Serving => leave(worker, accepting).await,
    }
    worker.pool.clear();
    // Shared connections say goodbye in tasks of their own, which run before this one does again.
    tokio::task::yield_now().await;
}

/// Both directions at once: the application stays, and another proxy has its new connections.
async fn replaced(worker: &Worker, mut paced: watch::Receiver<Pace>, mut accepting: Acceptors) {
    for (_, close, task) in accepting.drain(..) {
        close.send_replace(true);
        let _ = task.await;
    }
    worker.drain.begin_gently();
    let is_idle = || [Direction::Inbound, Direction::Outbound].iter().all(|&of| worker.drain.open(of) == 0);
    let mut idle_left = pin!(tokio::time::sleep(IDLE_LEFT));
    let mut gently = true;
    loop {
        let closes_idle = tokio::select! {
            () = tokio::time::sleep(REPLACED_CHECK) => false,
            () = &mut idle_left, if gently => true,
            // Everybody leaves now.
            _ = paced.wait_for(|pace| *pace == Pace::Leaving), if gently => true,
        };
        if closes_idle {
            gently = false;
            worker.drain.begin(Direction::Inbound);
            worker.drain.begin(Direction::Outbound);
        }
        if is_idle() {
            return;
        }
    }
}

/// Inbound first, as the application may call out while it answers.
async fn leave(worker: &Worker, mut accepting: Acceptors) {
    for direction in [Direction::Inbound, Direction::Outbound] {
        // From here on the kernel refuses whoever comes, who can go elsewhere at once. Taken in, they would keep a busy
        // proxy's drain from ever ending.
        for (_, close, task) in accepting.extract_if(.., |(of, ..)| *of == direction) {
            close.send_replace(true);
            let _ = task.await;
        }
        worker.drain.begin(direction);
        loop {
            // Connections just taken have not entered yet: first wait, then count.
            tokio::time::sleep(DRAIN_CHECK).await;
            if worker.drain.open(direction) == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_is_some_workers_and_no_worker_is_idle_that_need_not_be() {
        for (sockets, workers) in [(1, 1), (1, 3), (3, 1), (5, 2), (4, 4)] {
            let bind = || accept::bind(([127, 0, 0, 1], 0).into(), sockets).unwrap();
            let bound =
                |direction| Bound { direction, address: ([127, 0, 0, 1], 0).into(), fixed: None, sockets: bind() };
            let hands = deal(vec![bound(Direction::Inbound), bound(Direction::Outbound)], workers);
            assert_eq!(hands.len(), workers);
            assert_eq!(hands.iter().map(Vec::len).sum::<usize>(), 2 * sockets);
            let most = hands.iter().map(Vec::len).max().unwrap();
            assert_eq!(most, 2 * sockets.div_ceil(workers), "{sockets} sockets, {workers} workers");
        }
    }
}
