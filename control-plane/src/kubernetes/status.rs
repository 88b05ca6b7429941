//! What became of a document, written back.
