//! `weft-bench`: see the library's documentation.

use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use weft_benches::allocations::Counting;
use weft_benches::drive::{Chain, Run, workers};
use weft_benches::instructions;
use weft_benches::mesh::Kind;
use weft_benches::steps::{Material, STEPS, time};
use weft_benches::traffic::Shape;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What Weft's request path costs
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Nanoseconds of each step of a request, without I/O
    Steps,
    /// Allocations and CPU time of a request in running workers; fails when a plain GET allocates
    Allocations,
    /// User instructions of each step and of a request (needs valgrind)
    Instructions,
    /// Time and user instructions of both sides of a handshake (instructions need valgrind)
    Handshakes,
    /// Resident memory of one side of an idle connection between two proxies
    Idle {
        #[arg(long, default_value_t = 400)]
        connections: usize,
    },
    /// Time of a MiB from one proxy to the other, both on one thread
    Bulk {
        #[arg(long, default_value_t = 256)]
        mebibytes: u32,
    },
    /// Repeat a handshake, for a profiler
    #[command(hide = true)]
    Meet { kind: Kind, times: u64 },
    /// Repeat one step, for a profiler
    #[command(hide = true)]
    Repeat { step: usize, times: u64 },
    /// Send requests through workers of this process, for a profiler
    Drive {
        chain: Chain,
        shape: Shape,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long, default_value_t = 10_000)]
        rounds: usize,
    },
    /// Many requests with idle gaps before a server that closes idle connections early; fails when one request does
    KeepAlive(weft_benches::keep_alive::Plan),
    /// Run workers in front of an application until standard input ends
    Serve {
        chain: Chain,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        application: SocketAddr,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<Command>) -> Result<ExitCode> {
    match command {
        None => {
            steps()?;
            println!();
            return allocations();
        }
        Some(Command::Steps) => steps()?,
        Some(Command::Allocations) => return allocations(),
        Some(Command::Instructions) => instructions()?,
        Some(Command::Handshakes) => handshakes()?,
        Some(Command::Idle { connections }) => {
            println!("{:.0} bytes a side", weft_benches::mesh::idle_weight(connections)?);
        }
        Some(Command::Bulk { mebibytes }) => {
            let started = weft_proxy::clock::now();
            weft_benches::mesh::bulk(mebibytes)?;
            let each = (weft_proxy::clock::now() - started) / mebibytes.max(1);
            println!("{:.0} us a MiB, written and read", each.as_secs_f64() * 1e6);
        }
        Some(Command::Meet { kind, times }) => weft_benches::mesh::repeat(kind, times)?,
        Some(Command::Repeat { step, times }) => {
            let mut material = Material::new()?;
            if let Some((_, repeat)) = STEPS.get(step) {
                repeat(&mut material, times);
            }
        }
        Some(Command::Drive { chain, shape, connections, rounds }) => {
            Run { chain, shape, connections, warm_up: 100, rounds }.run()?;
        }
        Some(Command::KeepAlive(plan)) => {
            let outcome = plan.run()?;
            println!("{} requests, {} failed", outcome.requests, outcome.failures);
            if outcome.failures > 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
        Some(Command::Serve { chain, listen, application }) => {
            let _workers = workers(chain, listen, application)?;
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn handshakes() -> Result<()> {
    const TIMES: u32 = 500;
    println!("{:<12} {:>10} {:>14}", "both sides", "us", "instructions");
    for kind in Kind::value_variants() {
        let started = weft_proxy::clock::now();
        weft_benches::mesh::repeat(*kind, TIMES.into())?;
        let each = (weft_proxy::clock::now() - started) / TIMES;
        let name = format!("{kind:?}").to_lowercase();
        let count = instructions::of_handshake(*kind).map_or_else(|_| "-".to_owned(), |count| format!("{count:.0}"));
        println!("{name:<12} {:>10.0} {count:>14}", each.as_secs_f64() * 1e6);
    }
    Ok(())
}

fn steps() -> Result<()> {
    let mut material = Material::new()?;
    println!("{:<34} {:>10} {:>10}", "step", "median ns", "fastest");
    for (name, step) in STEPS {
        let timing = time(&mut material, step);
        println!("{name:<34} {:>10.0} {:>10.0}", timing.median, timing.fastest);
    }
    Ok(())
}

fn allocations() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    println!("{:<34} {:<8} {:>12} {:>10} {:>10}", "request", "worker", "allocations", "bytes", "cpu us");
    for chain in [Chain::Plain, Chain::Routed, Chain::Pair] {
        for shape in Shape::ALL {
            let rounds = if shape.has_streams() { 1000 } else { 5000 };
            let run = Run { chain, shape, connections: 4, warm_up: 500, rounds };
            let requests = run.requests() as f64;
            for (worker, spent) in run.run()?.into_iter().enumerate() {
                let side = match (chain, worker) {
                    (Chain::Plain, _) => "plain",
                    (Chain::Routed, _) => "routed",
                    (Chain::Pair, 0) => "caller",
                    (Chain::Pair, _) => "callee",
                };
                let per_request = |count: f64| count / requests;
                println!(
                    "{:<34} {side:<8} {:>12.3} {:>10.1} {:>10.1}",
                    shape.name(),
                    per_request(spent.allocated.count as f64),
                    per_request(spent.allocated.bytes as f64),
                    per_request(spent.cpu.as_secs_f64() * 1e6)
                );
                if chain != Chain::Pair && shape == Shape::Get && spent.allocated.count > 0 {
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    if code != ExitCode::SUCCESS {
        eprintln!("weft-bench: a plain GET must not allocate");
    }
    Ok(code)
}

fn instructions() -> Result<()> {
    println!("{:<42} {:>12}", "step", "instructions");
    for (index, (name, _)) in STEPS.iter().enumerate() {
        println!("{name:<42} {:>12.0}", instructions::of_step(index)?);
    }
    println!("\n{:<34} {:<8}{:>12}", "request", "worker", "instructions");
    for chain in [Chain::Plain, Chain::Pair] {
        for shape in Shape::ALL {
            let sides: &[&str] = if chain == Chain::Plain { &["plain"] } else { &["caller", "callee"] };
            for (side, count) in sides.iter().zip(instructions::of_request(chain, shape)?) {
                println!("{:<34} {side:<8}{count:>12.0}", shape.name());
            }
        }
    }
    Ok(())
}
