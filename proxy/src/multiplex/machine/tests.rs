//! Raw frames in and out, and two machines that talk through a pipe.

mod simulation;
