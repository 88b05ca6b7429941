//! A pod with a proxy beside it: one function for the webhook and the command line.
