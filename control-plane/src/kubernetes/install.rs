//! Everything of ours in a cluster: rendered, applied, removed, checked.
