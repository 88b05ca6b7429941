//! HTTP of the version that the client speaks.

use std::sync::Arc;

use super::{Service, http1, http2};
use crate::state::Listener;
use crate::stream::Connection;

/// Serves requests on `connection` until it ends.
pub async fn serve(service: &Service<'_>, connection: Connection, listener: Arc<Listener>) {
    // Whoever does not begin with the preface of HTTP/2 never pays for the question again.
    if let Some(connection) = http1::serve(service, connection, Arc::clone(&listener)).await {
        Box::pin(http2::serve(service, connection, listener)).await;
    }
}
