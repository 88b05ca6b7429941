//! What a mesh file asks for and this machine lacks; found before anything starts.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, User, access};

use super::fabric::Mode;
use super::file::{CommandLine, MAX_REPLICAS, MeshFile, MeshFileError, ServiceSpec};

/// Why a program without `PORT` cannot run twice on one network.
pub(super) const NEEDS_PORT: &str = " (without namespaces a program must take its port from ${PORT}, say by `env: {PORT: \"${PORT}\"}`, to run more than once)";

/// Checks every service against the machine.
pub(super) fn machine(mesh: &MeshFile, mode: &Mode) -> Result<(), MeshFileError> {
    let mut problems = Vec::new();
    for service in &mesh.services {
        let mut add = |field: &str, what: String| {
            problems.push(format!("{}: services.{}.{field}: {what}", mesh.path.display(), service.name));
        };
        if let Some(program) = missing_program(service, &mesh.directory) {
            add(
                "command",
                format!("found `{program}`, which is not on this machine; allowed: a program in PATH or a path"),
            );
        }
        if let Some(user) = &service.user {
            if !nix::unistd::Uid::effective().is_root() || matches!(mode, Mode::User { .. }) {
                add("user", format!("found {user}, which only root can become; allowed: nothing, or run as root"));
            } else if !matches!(User::from_name(user), Ok(Some(_))) {
                add("user", format!("found {user}, allowed: a user of this machine"));
            }
        }
        if let Some(other) = shares_fixed_port(service, mesh, mode) {
            add(
                "targetPort",
                format!("found the port of `{other}`; allowed without namespaces: one of its own, or ${{PORT}}"),
            );
        }
        let most = most_replicas(service, mode);
        if service.replicas > most {
            add("replicas", format!("found {}, allowed: 0..={most}{NEEDS_PORT}", service.replicas));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(MeshFileError { problems }) }
}

/// An earlier service that listens on the same port of the one network there is.
fn shares_fixed_port<'a>(service: &ServiceSpec, mesh: &'a MeshFile, mode: &Mode) -> Option<&'a str> {
    let fixed = |service: &ServiceSpec| {
        let port = service.port.map(|port| port.target_port);
        port.filter(|_| !mode.has_namespaces() && !service.uses_port_variable())
    };
    let own = fixed(service)?;
    let mut earlier = mesh.services.iter().take_while(|other| other.name != service.name);
    earlier.find(|other| fixed(other) == Some(own)).map(|other| other.name.as_str())
}

/// How many replicas a service can have here.
pub(super) fn most_replicas(service: &ServiceSpec, mode: &Mode) -> u32 {
    let shares_port = !mode.has_namespaces() && service.port.is_some() && !service.uses_port_variable();
    if shares_port { 1 } else { MAX_REPLICAS }
}

/// The program of a service if it cannot be found where its process would look.
fn missing_program<'a>(service: &'a ServiceSpec, directory: &Path) -> Option<&'a str> {
    let program = match &service.command {
        CommandLine::Program(arguments) => arguments.first()?.as_str(),
        CommandLine::Shell(_) => "sh",
    };
    let found = if program.contains('/') {
        is_program(&directory.join(program))
    } else {
        let own = service.env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.into());
        let path = own.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        std::env::split_paths(&path).any(|folder: PathBuf| is_program(&directory.join(folder).join(program)))
    };
    (!found).then_some(program)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, mode: &Mode) -> String {
        let mesh = MeshFile::parse(Path::new("mesh.yaml"), PathBuf::from("/"), text).unwrap();
        machine(&mesh, mode).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_service() {
        let loopback = Mode::Loopback { reason: String::new() };
        for (command, missing) in [
            ("[sh]", false),
            ("[no-such-program-here]", true),
            ("[./bin/sh]", false),
            ("[/bin/sh]", false),
            ("[/etc/passwd]", true),
            ("[/bin]", true),
            ("no-such-program-here but a shell looks for it", false),
        ] {
            let found = problems(&format!("services: {{web: {{command: {command}}}}}"), &loopback);
            assert_eq!(found.contains("services.web.command: found `"), missing, "{command}: {found}");
        }
    }

    #[test]
    fn a_fixed_port_cannot_be_shared_without_namespaces() {
        let text = "services: {web: {command: [sh], port: 80, replicas: 2}}";
        assert!(
            problems(text, &Mode::Loopback { reason: String::new() }).contains("replicas: found 2, allowed: 0..=1")
        );
        assert_eq!(problems(text, &Mode::Root), "");
        let text = "services: {web: {command: [sh], port: 80}, db: {command: [sh], port: 1, targetPort: 80}}";
        assert!(
            problems(text, &Mode::Loopback { reason: String::new() })
                .contains("services.db.targetPort: found the port of `web`")
        );
        assert_eq!(problems(text, &Mode::User { uid: 1, gid: 1 }), "");
        let text = "services: {web: {command: [sh, '${PORT}'], port: 80, replicas: 2}}";
        assert_eq!(problems(text, &Mode::Loopback { reason: String::new() }), "");
    }

    #[test]
    fn a_user_is_refused_where_there_is_only_one() {
        let text = "services: {web: {command: [sh], user: nobody}}";
        assert!(problems(text, &Mode::User { uid: 1000, gid: 1000 }).contains("services.web.user: found nobody"));
    }
}
