//! `mesh.yaml`: what it may say, and every problem in it, found before anything starts.
//!
//! Ranges and shapes are checked while the text is read, so each refusal carries its line; rules between fields
//! follow, all of them reported at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::value::{Integer, Pairs, Scalar};

/// Most replicas of one service: what one machine can carry without thought.
pub const MAX_REPLICAS: u32 = 50;
/// Ports of the proxy in every workload.
const PROXY_PORTS: std::ops::RangeInclusive<u16> = 15000..=15006;

/// A mesh on one machine, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFile {
    /// What messages call it.
    pub path: PathBuf,
    /// Where programs run and what relative paths are relative to.
    pub directory: PathBuf,
    /// Written to the mesh document; `None` leaves that as it is (strict when new).
    pub mtls: Option<Mtls>,
    /// In the order of the file.
    pub services: Vec<ServiceSpec>,
}

/// Whether plaintext is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    Strict,
    Permissive,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    Http,
    Http1,
    Http2,
    Grpc,
    Tcp,
    Tls,
    #[default]
    Auto,
}

impl PortProtocol {
    /// As documents call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Auto => "auto",
        }
    }
}

/// One service: a program and how many of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: String,
    pub command: CommandLine,
    /// `None`: it only calls others.
    pub port: Option<ServicePort>,
    pub replicas: u32,
    pub env: Vec<(String, String)>,
    /// Extra environment of the replica of that index.
    pub replica_env: Vec<Vec<(String, String)>>,
    /// The user it runs as; root mode only.
    pub user: Option<String>,
}

/// The port others call and the one the program listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    pub port: u16,
    pub target_port: u16,
    pub protocol: PortProtocol,
}

/// How a program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Program and arguments, as given.
    Program(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

/// Everything wrong with a mesh file, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct MeshFileError {
    pub problems: Vec<String>,
}

impl fmt::Display for MeshFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMesh {
    mtls: Option<Mtls>,
    services: Pairs<RawService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawService {
    command: RawCommand,
    port: Option<Integer<1, 65535>>,
    target_port: Option<Integer<1, 65535>>,
    protocol: Option<PortProtocol>,
    replicas: Option<Integer<0, { MAX_REPLICAS as u64 }>>,
    #[serde(default)]
    env: Pairs<Scalar>,
    #[serde(default)]
    replica_env: Vec<Pairs<Scalar>>,
    user: Option<String>,
}

struct RawCommand(CommandLine);

impl<'de> Deserialize<'de> for RawCommand {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = CommandLine;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command: a list like [nginx, -g, \"daemon off;\"], or a line for `sh -c`")
            }
            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<CommandLine, E> {
                if line.trim().is_empty() {
                    return Err(E::custom("found an empty command, allowed: a program"));
                }
                Ok(CommandLine::Shell(line.to_owned()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<CommandLine, A::Error> {
                let mut arguments = Vec::new();
                while let Some(Scalar(argument)) = list.next_element()? {
                    arguments.push(argument);
                }
                match arguments.first() {
                    Some(program) if !program.is_empty() => Ok(CommandLine::Program(arguments)),
                    _ => Err(serde::de::Error::custom("found an empty list, allowed: a program and its arguments")),
                }
            }
        }
        deserializer.deserialize_any(Visitor).map(Self)
    }
}

impl MeshFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem found, each with file, line and field.
    pub fn load(path: &Path) -> Result<Self, MeshFileError> {
        let text = std::fs::read_to_string(path).map_err(|error| MeshFileError {
            problems: vec![format!("{}: cannot be read: {error}", path.display())],
        })?;
        let directory = path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_owned));
        Self::parse(path, directory.unwrap_or_else(|| PathBuf::from("/")), &text)
    }

    /// Reads and checks a text; `path` is what messages call it.
    pub fn parse(path: &Path, directory: PathBuf, text: &str) -> Result<Self, MeshFileError> {
        let raw: RawMesh = serde_yaml_ng::from_str(text)
            .map_err(|error| MeshFileError { problems: vec![reading_problem(path, &error)] })?;
        let mut problems = Problems { path, text, found: Vec::new() };
        let services = raw.services.0.into_iter().map(|(name, service)| convert(&mut problems, name, service));
        let mesh = Self { path: path.to_owned(), directory, mtls: raw.mtls, services: services.collect() };
        check_names(&mut problems, &mesh.services);
        problems.finish()?;
        Ok(mesh)
    }

    /// In bytes, at the most replicas there can be.
    pub(super) fn longest_workload_name(&self) -> usize {
        self.services.iter().map(|service| service.workload(MAX_REPLICAS - 1).len()).max().unwrap_or_default()
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&ServiceSpec> {
        self.services.iter().find(|service| service.name == name)
    }
}

impl ServiceSpec {
    /// The name of the replica of that index, counted from 0.
    pub fn workload(&self, index: u32) -> String {
        format!("{}-{}", self.name, index + 1)
    }

    /// Whether its command or environment says where the port to listen on comes from.
    pub fn uses_port_variable(&self) -> bool {
        let in_command = match &self.command {
            CommandLine::Program(arguments) => arguments.iter().any(|argument| argument.contains("${PORT}")),
            CommandLine::Shell(line) => line.contains("$PORT") || line.contains("${PORT"),
        };
        let mentions = |(_, value): &(String, String)| value.contains("${PORT}");
        in_command || self.env.iter().any(mentions) || self.replica_env.iter().flatten().any(mentions)
    }
}

/// What rules between fields found.
pub(super) struct Problems<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<String>,
}

impl Problems<'_> {
    fn add(&mut self, service: &str, field: &str, what: &str) {
        let line = line_of(self.text, service, field).map_or(String::new(), |line| format!(":{line}"));
        let separator = if field.is_empty() { "" } else { "." };
        self.found.push(format!("{}{line}: services.{service}{separator}{field}: {what}", self.path.display()));
    }

    fn finish(self) -> Result<(), MeshFileError> {
        if self.found.is_empty() { Ok(()) } else { Err(MeshFileError { problems: self.found }) }
    }
}

fn convert(problems: &mut Problems<'_>, name: String, raw: RawService) -> ServiceSpec {
    let port = raw.port.map(Integer::port);
    let target_port = raw.target_port.map(Integer::port);
    if port.is_none() {
        if let Some(target) = target_port {
            problems.add(&name, "targetPort", &format!("found {target} without `port`, allowed: together with `port`"));
        }
        if raw.protocol.is_some() {
            problems.add(&name, "protocol", "found without `port`, allowed: together with `port`");
        }
    }
    if let Some(target) = target_port.or(port).filter(|target| PROXY_PORTS.contains(target)) {
        let field = if target_port.is_some() { "targetPort" } else { "port" };
        problems.add(
            &name,
            field,
            &format!(
                "found {target}, which the proxy beside the program uses; allowed: any port outside 15000..=15006"
            ),
        );
    }
    let replicas = raw.replicas.map_or(1, |count| count.0 as u32);
    if raw.replica_env.len() > replicas as usize {
        let what = format!("found {} entries, allowed: at most one per replica ({replicas})", raw.replica_env.len());
        problems.add(&name, "replicaEnv", &what);
    }
    let mut environment = |field: &str, pairs: Pairs<Scalar>| -> Vec<(String, String)> {
        pairs
            .0
            .into_iter()
            .map(|(key, Scalar(value))| {
                if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                    let what =
                        format!("found the name or value of {key:?}, allowed: text without NUL, names without `=`");
                    problems.add(&name, field, &what);
                }
                (key, value)
            })
            .collect()
    };
    ServiceSpec {
        env: environment("env", raw.env),
        replica_env: raw.replica_env.into_iter().map(|pairs| environment("replicaEnv", pairs)).collect(),
        name,
        command: raw.command.0,
        port: port.map(|port| ServicePort {
            port,
            target_port: target_port.unwrap_or(port),
            protocol: raw.protocol.unwrap_or_default(),
        }),
        replicas,
        user: raw.user,
    }
}

fn check_names(problems: &mut Problems<'_>, services: &[ServiceSpec]) {
    if services.is_empty() {
        problems.found.push(format!("{}: services: found none, allowed: at least one", problems.path.display()));
    }
    let names: BTreeSet<&str> = services.iter().map(|service| service.name.as_str()).collect();
    for name in &names {
        // A workload is called NAME-NN and is a host name: 63 bytes in all.
        let is_label = name.len() <= 60
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_label {
            problems.add(
                name,
                "",
                "found a name that is no host name, allowed: a letter, then at most 59 of a-z 0-9 -",
            );
        }
        if *name == "localhost" {
            problems.add(name, "", "found `localhost`, which every program takes for itself; allowed: another name");
        }
        // `web-1` as a service and as the first workload of `web` would be one host name for two things.
        if let Some((stem, number)) = name.rsplit_once('-')
            && names.contains(stem)
            && number.parse::<u32>().is_ok_and(|number| (1..=MAX_REPLICAS).contains(&number))
        {
            problems.add(name, "", &format!("found the name of a workload of `{stem}`, allowed: a name of its own"));
        }
    }
}

/// `mesh.yaml:4:13: services.web.port: found ...`
fn reading_problem(path: &Path, error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let message = match text.rfind(" at line ") {
        Some(end) => &text[..end],
        None => &text,
    };
    match error.location() {
        Some(at) => format!("{}:{}:{}: {message}", path.display(), at.line(), at.column()),
        None => format!("{}: {message}", path.display()),
    }
}

/// The line of `services.SERVICE.FIELD` in a text in block style (of the service when the field is not found).
fn line_of(text: &str, service: &str, field: &str) -> Option<usize> {
    let mut found = None;
    let mut service_indent = None;
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let key = line.trim_start().split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
        match service_indent {
            None if indent > 0 && key == service => {
                found = Some(index + 1);
                service_indent = Some(indent);
            }
            Some(outer) if !line.trim().is_empty() && indent <= outer => break,
            Some(_) if key == field => return Some(index + 1),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
