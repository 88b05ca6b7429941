//! HTTPS for the API server, with certificates of our own root.
