//! A few bytes there and back every 2 ms: what a stall anywhere on the way looks like from outside.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weft_tests::process::{PATIENCE, now};

use crate::pause;

const BEAT: Duration = Duration::from_millis(2);
/// Longer than this is a stall.
const STALL: Duration = Duration::from_millis(20);
/// What the machine itself must have been late by, at the same time, to be the cause.
const MACHINE: Duration = Duration::from_millis(5);

/// What a heartbeat has seen.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    beats: u64,
    longest: Duration,
    /// Beats that were late: when they began, and how long they took.
    late: Vec<(Instant, Duration)>,
    broken: Option<String>,
}

impl Heartbeat {
    /// Beats until it is over.
    pub(crate) fn beat(address: SocketAddr, over: &AtomicBool) -> Self {
        let mut heartbeat = Self::default();
        if let Err(error) = heartbeat.run(address, over) {
            heartbeat.broken = Some(error.to_string());
        }
        heartbeat
    }

    fn run(&mut self, address: SocketAddr, over: &AtomicBool) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while !over.load(Ordering::SeqCst) {
            let begin = now();
            stream.write_all(&self.beats.to_be_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            let took = begin.elapsed();
            self.beats += 1;
            self.longest = self.longest.max(took);
            if took > MACHINE {
                self.late.push((begin, took));
            }
            pause(BEAT);
        }
        Ok(())
    }

    /// Stalls during which the heartbeat beside the mesh was on time.
    pub(crate) fn stalls_of_our_own(&self, beside: &Self) -> Vec<String> {
        let mut wrong: Vec<String> = self.broken.iter().map(|error| format!("the heartbeat broke: {error}")).collect();
        let overlaps = |begin: Instant, took: Duration| {
            beside.late.iter().any(|(other, long)| begin < *other + *long && *other < begin + took)
        };
        let stalls: Vec<Duration> = self
            .late
            .iter()
            .filter(|(begin, took)| *took > STALL && !overlaps(*begin, *took))
            .map(|late| late.1)
            .collect();
        if let Some(longest) = stalls.iter().max() {
            wrong.push(format!(
                "{} stalls over {STALL:?} that only the mesh saw, the longest {longest:?}",
                stalls.len()
            ));
        }
        wrong
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stalls = self.late.iter().filter(|(_, took)| *took > STALL).count();
        write!(f, "{} beats, longest {:?}, {stalls} over {STALL:?}", self.beats, self.longest)
    }
}
