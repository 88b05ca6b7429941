//! `weft demo`: a sample shop on a mesh of its own, load on it, and a live table of what the mesh does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::output::Format;
use super::{Context, Failure};
use crate::demo::live::{Display, Form, Proxy, follow};
use crate::demo::{self, summary::Summary};
use crate::up::{self, Mesh, MeshFile, Mode, Options};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after this time with a summary, like 20s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = up::parse_duration)]
    limit: Option<Duration>,
    /// Share the machine's network; traffic is not intercepted
    #[arg(long)]
    no_namespaces: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
        let executable =
            std::env::current_exe().map_err(|error| Failure::new(format!("cannot find this executable: {error}")))?;
        let text = demo::mesh_file(&executable);
        let mesh = MeshFile::parse(Path::new("the demo's mesh file"), PathBuf::from("/"), &text)
            .map_err(|error| failed(&error))?;
        let mode = up::mode(self.no_namespaces, &executable);
        let mut options = Options::new(mode).map_err(|error| failed(&error))?;
        options.data.clone_from(&context.given_data);
        options.quiet = true;
        let display = Display::of_stdout(context.output.format == Format::Json);
        let intercepted = !matches!(options.mode, Mode::Loopback { .. });
        let limit = self.limit;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
        if display.form != Form::Json {
            eprintln!("weft: starting control plane, shop, proxies and load; Ctrl-C ends with a summary");
        }
        let mut outcome = Ok(Summary::default());
        let mut look = async |mesh: &Mesh, stop: tokio::sync::oneshot::Receiver<()>| {
            if display.form != Form::Json {
                announce(mesh, intercepted);
            }
            let stop = async {
                tokio::select! {
                    _ = stop => {}
                    () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => {}
                }
            };
            outcome = follow(|| proxies(mesh), &display, &mut std::io::stdout(), stop).await;
        };
        runtime.block_on(up::run(mesh, options, &mut look)).map_err(|error| failed(&error))?;
        let summary = outcome?;
        show(&summary, &display)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn announce(mesh: &Mesh, intercepted: bool) {
    let count = mesh.workloads().len();
    let how = if intercepted { "each in a network namespace of its own" } else { "on loopback ports" };
    eprintln!("weft: {count} workloads run, {how}; `weft status --data {}` tells more", mesh.data().display());
}

fn proxies(mesh: &Mesh) -> Vec<Proxy> {
    mesh.workloads().into_iter().map(|workload| Proxy { name: workload.name, socket: workload.admin_socket }).collect()
}

fn show(summary: &Summary, display: &Display) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    if display.form == Form::Json {
        writeln!(output, "{}", summary.to_json())
    } else {
        const WIDTH: usize = 100;
        write!(output, "\n{}", summary.render(WIDTH, display.colour))
    }
}
