//! Whether the first configuration can be believed to be whole.
//!
//! A control plane that answers before it knows its mesh has nothing to say, and an answer without a single service is
//! complete by the protocol's rules. Outside of a cluster a mesh may well be empty. In one there is always a service, the API
//! server's own: there an empty answer is waited out, for a while, so that no application starts without its peers. A proxy
//! that asks for destinations is told its own workload's ports alone, of which a pod has at least those nobody declared.

use std::time::Duration;

use weft_core::model::Direction;

use crate::clock;
use crate::state::Store;

/// Longest wait for something after an empty answer: a control plane that has just started has read its cluster by then.
/// After that the answer is believed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until something is configured, or for as long as `patience`.
pub(super) async fn filled(store: &Store, patience: Duration) {
    let deadline = clock::now() + patience;
    while is_empty(store) {
        if clock::now() >= deadline {
            tracing::warn!("the control plane knows no service at all; the proxy goes on without any");
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_empty(store: &Store) -> bool {
    let snapshot = store.load();
    // Where the mesh is told, what is for our own workload alone says nothing of it.
    let told = if store.demand().is_some() { Direction::Inbound } else { Direction::Outbound };
    !snapshot.listeners().any(|listener| listener.spec.direction == told)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_core::model::Protocol;

    use super::*;
    use crate::testing::{nobody, outbound};

    #[tokio::test]
    async fn an_empty_configuration_is_waited_out() {
        let store = Arc::new(Store::new("shop/web".to_owned()));
        let begun = clock::now();
        filled(&store, Duration::from_millis(50)).await;
        assert!(clock::now() - begun >= Duration::from_millis(50), "an empty one was believed at once");
        let waiting = tokio::spawn({
            let store = Arc::clone(&store);
            async move { filled(&store, Duration::from_mins(10)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        store.apply(outbound(Protocol::Http, &[nobody()], None));
        tokio::time::timeout(crate::testing::PATIENCE, waiting).await.expect("it is not empty").expect("no panic");
    }
}
