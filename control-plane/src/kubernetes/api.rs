//! What the command line is told over HTTP, by the reader's token.
