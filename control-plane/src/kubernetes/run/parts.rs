//! The parts of a control plane while they run.

use std::future::Future;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};

use crate::app::Stop;

type Ended = (&'static str, Result<(), String>);

/// Tasks that run until the control plane ends. When one of them ends before, so does it.
#[derive(Default)]
pub(super) struct Parts {
    /// They end by themselves when they are told.
    servers: JoinSet<Ended>,
    /// They end when they are dropped.
    keepers: JoinSet<Ended>,
}

impl Parts {
    pub(super) fn serve(
        &mut self,
        part: &'static str,
        server: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.servers.spawn(async move { (part, server.await) });
    }

    pub(super) fn keep(&mut self, part: &'static str, keeper: impl Future<Output = ()> + Send + 'static) {
        self.keepers.spawn(async move {
            keeper.await;
            (part, Err("it has nothing more to do".to_owned()))
        });
    }

    /// Something whose end says why the control plane must end.
    pub(super) fn watch(&mut self, part: &'static str, until: impl Future<Output = String> + Send + 'static) {
        self.keepers.spawn(async move { (part, Err(until.await)) });
    }

    /// The first part that ends, and why.
    pub(super) async fn ended(&mut self) -> (&'static str, String) {
        let ended = tokio::select! {
            Some(ended) = self.servers.join_next() => ended,
            Some(ended) = self.keepers.join_next() => ended,
            else => return ("everything", "there is nothing to run".to_owned()),
        };
        match ended {
            Ok((part, result)) => (part, result.err().unwrap_or_else(|| "without a reason".to_owned())),
            Err(error) => ("a part", failure(&error)),
        }
    }

    /// Completes when all servers have ended.
    pub(super) async fn finish(mut self) {
        while let Some(ended) = self.servers.join_next().await {
            match ended {
                Ok((part, Err(reason))) => tracing::warn!(part, reason, "ended badly"),
                Ok(_) => {}
                Err(error) => tracing::warn!(reason = failure(&error), "ended badly"),
            }
        }
    }
}

fn failure(error: &JoinError) -> String {
    error.to_string()
}

/// Serves plain HTTP until `stop`.
pub(super) async fn http(listener: TcpListener, router: Router, mut stop: Stop) -> Result<(), String> {
    let until = async move {
        // A sender that is gone stops as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(until).await.map_err(|error| error.to_string())
}
