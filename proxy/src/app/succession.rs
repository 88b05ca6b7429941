//! How a proxy comes to its listeners and when it ends: by itself, or as one of several under a supervisor.
//!
//! Without a supervisor it listens at once and ends by a signal. With one it may have to wait until the proxy before it
//! gives its listeners, and ends too when another one has taken them over. A supervisor that is gone is a signal to end: a
//! proxy that nobody looks after would keep its addresses from the next.

use std::error::Error;
use std::future::{Future, pending};
use std::io;

use nix::sys::prctl;
use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::AppError;
use crate::supervise::{self, Counts, FromProxy, Inherited, Order, Preparation, Supervisor};

/// How the proxy's serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A signal, or no supervisor any more.
    Left,
    /// Another proxy has the connections that come from now on.
    Replaced,
}

/// The proxy was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving;

/// Our place among the proxies of a supervisor; the only one without.
#[derive(Debug)]
pub(super) struct Succession {
    supervisor: Option<(Supervisor, mpsc::Receiver<Order>)>,
    /// What we were told when others had been here before.
    preparation: Option<Preparation>,
    /// What the metrics say.
    counts: Counts,
    terminate: Signal,
    interrupt: Signal,
}

/// What a supervisor leaves to its children: it waits for signals itself, which makes them wait for us too, and has
/// started us by a number for a name.
pub(super) fn settle() {
    let _ = SigSet::empty().thread_set_mask();
    let _ = prctl::set_name(c"weft-proxy");
}

impl Succession {
    /// Joins the supervisor, when its protocol is told.
    pub(super) fn join(protocol: Option<u16>) -> Result<Self, AppError> {
        let supervisor = protocol.map(|_| supervise::join()).transpose().map_err(AppError::Supervisor)?;
        let signal = |kind| signal(kind).map_err(AppError::Signals);
        describe_metrics();
        Ok(Self {
            supervisor,
            preparation: None,
            counts: Counts::default(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Who can replace this proxy.
    pub(super) fn supervisor(&self) -> Option<Supervisor> {
        self.supervisor.as_ref().map(|(supervisor, _)| supervisor.clone())
    }

    /// Waits for the word to begin; whether other proxies have the listeners.
    pub(super) async fn begin(&mut self) -> Result<bool, Leaving> {
        if self.supervisor.is_none() {
            return Ok(false);
        }
        loop {
            match self.order().await? {
                Order::Start => return Ok(false),
                Order::Prepare(preparation) => {
                    tracing::info!("getting ready beside the proxy that runs");
                    self.preparation = Some(preparation);
                    return Ok(true);
                }
                _ => {}
            }
        }
    }

    /// Gets the listeners of the proxy before us: when `configured` is done, or before that when nobody else is left.
    pub(super) async fn take_over(&mut self, configured: impl Future<Output = ()>) -> Result<Vec<Inherited>, Leaving> {
        let supervisor = self.supervisor();
        let told = async {
            configured.await;
            if let Some(supervisor) = supervisor {
                supervisor.say(FromProxy::Configured).await;
            }
            pending::<()>().await;
        };
        let listeners = async {
            loop {
                if let Order::TakeOver(listeners) = self.order().await? {
                    return Ok(listeners);
                }
            }
        };
        tokio::select! {
            () = told => Err(Leaving),
            listeners = listeners => listeners,
        }
    }

    /// Says that connections are accepted.
    pub(super) async fn serving(&mut self) {
        let Some((supervisor, _)) = &self.supervisor else { return };
        supervisor.say(FromProxy::Serving).await;
        let Some(Preparation { mut counts, returns_from }) = self.preparation.take() else { return };
        if returns_from.is_empty() {
            counts.completed += 1;
        } else {
            tracing::error!(program = returns_from, "this proxy is back: the program that had replaced it died");
            counts.rolled_back += 1;
        }
        self.counted(counts);
    }

    /// The supervisor counts, as it outlives us; what it says is what the metrics say.
    fn counted(&mut self, now: Counts) {
        let before = std::mem::replace(&mut self.counts, now);
        for (result, now, before) in [
            ("completed", now.completed, before.completed),
            ("refused", now.refused, before.refused),
            ("rolled_back", now.rolled_back, before.rolled_back),
        ] {
            metrics::counter!("weft_handovers_total", "result" => result).increment(now.saturating_sub(before).into());
        }
    }

    /// Serves until the end, and gives copies of the listeners to whoever comes after us. Copies keep addresses open:
    /// they are gone when this returns.
    pub(super) async fn end(&mut self, copies: Vec<Inherited>) -> End {
        loop {
            match self.order().await {
                Ok(Order::HandOver) => {
                    tracing::info!("giving the listeners to another proxy");
                    self.give(&copies).await;
                }
                Ok(Order::Drain) => return End::Replaced,
                Ok(Order::Counted(counts)) => self.counted(counts),
                Ok(_) => {}
                Err(Leaving) => return End::Left,
            }
        }
    }

    /// Waits for the word to end, also after another proxy has taken over.
    pub(super) async fn told_to_leave(&mut self) -> Leaving {
        loop {
            if let Err(leaving) = self.order().await {
                return leaving;
            }
        }
    }

    /// Tells the supervisor why this proxy ends; it tells whoever asked for it.
    pub(super) async fn failed(&self, error: &dyn Error) {
        if let Some((supervisor, _)) = &self.supervisor {
            supervisor.say(FromProxy::Failed(error.to_string())).await;
        }
    }

    async fn give(&self, copies: &[Inherited]) {
        let Some((supervisor, _)) = &self.supervisor else { return };
        let copy = |inherited: &Inherited| {
            Ok(Inherited { name: inherited.name.clone(), socket: inherited.socket.try_clone()? })
        };
        match copies.iter().map(copy).collect::<io::Result<_>>() {
            Ok(copies) => supervisor.give(copies).await,
            // The supervisor waits for some seconds, and then tells why nothing came of it.
            Err(error) => tracing::error!(%error, "the listeners cannot be copied"),
        }
    }

    /// What is wanted next.
    async fn order(&mut self) -> Result<Order, Leaving> {
        let orders = self.supervisor.as_mut().map(|(_, orders)| orders);
        let order = async {
            match orders {
                Some(orders) => orders.recv().await.unwrap_or(Order::Gone),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Err(Leaving),
            _ = self.interrupt.recv() => Err(Leaving),
            order = order => match order {
                Order::Gone => {
                    tracing::warn!("the supervisor is gone: ending");
                    Err(Leaving)
                }
                order => Ok(order),
            },
        }
    }
}

fn describe_metrics() {
    metrics::describe_counter!("weft_handovers_total", "Replacements of this proxy's program, by result");
}
