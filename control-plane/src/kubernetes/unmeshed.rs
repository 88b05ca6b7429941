//! Pods that should have a proxy and have none.
