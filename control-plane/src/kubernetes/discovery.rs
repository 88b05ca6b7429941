//! The cluster's objects, watched, as documents.
