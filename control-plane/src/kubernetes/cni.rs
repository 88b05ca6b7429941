//! The plugin that captures where pods may not, and the guard of its nodes.
