//! Service-account tokens as proof of identity.
