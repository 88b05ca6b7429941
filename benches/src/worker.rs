//! A worker of the proxy in a thread of its own, through the proxy's public parts: what a production worker is, with a
//! fixed configuration instead of a control plane.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use weft_core::model::Direction;
use weft_proxy::accept::{self, Accepting};
use weft_proxy::state::{Change, Store};
use weft_proxy::telemetry::Registry;
use weft_proxy::tls::{CredentialStore, Credentials};
use weft_proxy::worker::Worker;

use crate::allocations::{Allocated, Tally};

/// Connections one worker takes.
const LIMIT: usize = 10_000;

/// A running worker; it ends when this is dropped.
#[derive(Debug)]
pub struct RunningWorker {
    pub address: SocketAddr,
    tally: &'static Tally,
    thread_id: i32,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningWorker {
    /// Listens on `listen`; every connection seems to have been going to `destination`.
    pub fn start(
        listen: SocketAddr,
        direction: Direction,
        destination: SocketAddr,
        change: Change,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        // Signals are part of the cost. Several workers of one process share the first recorder.
        Registry::default().install();
        let store = Arc::new(Store::new("default/caller".to_owned()));
        store.apply(change);
        let published = Arc::new(CredentialStore::new());
        if let Some(credentials) = credentials {
            published.publish(credentials);
        }
        let socket = accept::bind(listen, 1)?.remove(0);
        let address = socket.local_addr()?;
        let tally: &'static Tally = Box::leak(Box::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, id) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("{direction:?}").to_lowercase()).spawn(move || {
            // The other end waits for this; without it there is nothing to run for.
            let _ = started.send(nix::unistd::gettid().as_raw());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("a runtime starts");
            tally.watch_this_thread();
            runtime.block_on(async {
                let worker = Rc::new(Worker::new(store, published, vec![], None, fastrand::Rng::with_seed(1)));
                let listener = tokio::net::TcpListener::from_std(socket).expect("a bound socket is a listener");
                let accepting = Accepting { listener, direction, fixed: Some(destination) };
                tokio::task::spawn_local(accept::serve(worker, accepting, LIMIT));
                let _ = stopped.await;
            });
        })?;
        let thread_id = id.recv().context("the worker's thread ended at once")?;
        Ok(Self { address, tally, thread_id, stop: Some(stop), thread: Some(thread) })
    }

    /// What its thread has allocated, where [`crate::allocations::Counting`] is the allocator.
    pub fn allocated(&self) -> Allocated {
        self.tally.read()
    }

    /// How long its thread has run on a processor, as the scheduler counts.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/self/task/{}/schedstat", self.thread_id);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let nanoseconds =
            text.split(' ').next().unwrap_or_default().parse().with_context(|| format!("{path}: {text}"))?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
