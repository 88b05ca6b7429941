//! A few bytes there and back every 2 ms: what a stall anywhere on the way looks like from outside.

use std::fmt;
use std::fs::DirEntry;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weft_tests::process::{PATIENCE, now};

use crate::pause;

/// Name of the threads that answer the heartbeat through the mesh.
pub(crate) const SERVER: &str = "beat";
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
    /// The same without waits for a processor.
    longest_running: Duration,
    /// Beats that were late: when they began, and how long they took.
    late: Vec<(Instant, Duration)>,
    broken: Option<String>,
}

impl Heartbeat {
    /// Beats until it is over. What these processes, this thread and the heartbeat's server waited for a processor
    /// meanwhile is taken off: the load leaves none idle.
    pub(crate) fn beat(address: SocketAddr, over: &AtomicBool, processes: &[u32]) -> Self {
        let mut heartbeat = Self::default();
        if let Err(error) = heartbeat.run(address, over, processes) {
            heartbeat.broken = Some(error.to_string());
        }
        heartbeat
    }

    fn run(&mut self, address: SocketAddr, over: &AtomicBool, processes: &[u32]) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while !over.load(Ordering::SeqCst) {
            let waited = waited(processes);
            let begin = now();
            stream.write_all(&self.beats.to_be_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            let took = begin.elapsed();
            self.beats += 1;
            self.longest = self.longest.max(took);
            let took = took.saturating_sub(self::waited(processes).saturating_sub(waited));
            self.longest_running = self.longest_running.max(took);
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
        write!(
            f,
            "{} beats, longest {:?}, without waits for a processor {:?}, {stalls} of these over {STALL:?}",
            self.beats, self.longest, self.longest_running
        )
    }
}

/// How long the threads of these processes, this thread, and the one that answers it have been ready to run and had no
/// processor.
fn waited(processes: &[u32]) -> Duration {
    let tasks = |process: &str| std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let is_server =
        |thread: &DirEntry| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == SERVER);
    let theirs =
        processes.iter().flat_map(|process| tasks(&process.to_string())).chain(tasks("self").filter(is_server));
    let all =
        theirs.map(|thread| thread.path().join("schedstat")).chain([PathBuf::from("/proc/thread-self/schedstat")]);
    let waits = all.filter_map(|statistics| {
        let text = std::fs::read_to_string(statistics).ok()?;
        text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
    });
    waits.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A heartbeat that was late so many milliseconds after a moment, for so many.
    fn late(begin: Instant, all: &[(u64, u64)]) -> Heartbeat {
        let late = all.iter().map(|(at, took)| (begin + Duration::from_millis(*at), Duration::from_millis(*took)));
        Heartbeat { late: late.collect(), ..Heartbeat::default() }
    }

    #[test]
    fn a_stall_that_only_the_mesh_saw_is_ours() {
        let begin = now();
        let told = late(begin, &[(100, 21), (500, 30), (900, 19)]).stalls_of_our_own(&late(begin, &[(400, 50)]));
        assert_eq!(told, ["2 stalls over 20ms that only the mesh saw, the longest 30ms"]);
    }

    #[test]
    fn a_stall_of_the_machine_is_not_ours() {
        let begin = now();
        let told = late(begin, &[(100, 40)]).stalls_of_our_own(&late(begin, &[(130, 6)]));
        assert_eq!(told, Vec::<String>::new());
    }

    #[test]
    fn a_heartbeat_that_breaks_is_told() {
        let broken = Heartbeat { broken: Some("reset".to_owned()), ..Heartbeat::default() };
        assert_eq!(broken.stalls_of_our_own(&Heartbeat::default()), ["the heartbeat broke: reset"]);
    }
}
