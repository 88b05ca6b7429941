//! Wires a control plane in a cluster.
