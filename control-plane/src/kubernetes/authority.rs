//! The root in a Secret, its bundle in a ConfigMap.
