use super::*;

fn parse(text: &str) -> Result<MeshFile, MeshFileError> {
    MeshFile::parse(Path::new("mesh.yaml"), PathBuf::from("/srv"), text)
}

#[test]
fn a_full_file_is_read() {
    let mesh = parse(
        r#"
mtls: permissive
services:
  web:
    command: [nginx, -g, "daemon off;", -p, 8]
    port: 80
    targetPort: 8080
    protocol: http
    replicas: 2
    env: {A: text, B: 7, C: true}
    replicaEnv: [{SLOW: 200ms}, {}]
    user: nobody
  load:
    command: while true; do curl -s http://web; done
"#,
    )
    .unwrap();
    assert_eq!(mesh.mtls, Some(Mtls::Permissive));
    let web = &mesh.services[0];
    assert_eq!(web.command, CommandLine::Program(["nginx", "-g", "daemon off;", "-p", "8"].map(str::to_owned).into()));
    assert_eq!(web.port, Some(ServicePort { port: 80, target_port: 8080, protocol: PortProtocol::Http }));
    assert_eq!((web.replicas, web.user.as_deref()), (2, Some("nobody")));
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
    assert_eq!(web.env, text(&[("A", "text"), ("B", "7"), ("C", "true")]));
    assert_eq!(web.replica_env, [text(&[("SLOW", "200ms")]), text(&[])]);
    let load = &mesh.services[1];
    assert_eq!((load.port, load.replicas), (None, 1));
    assert!(matches!(load.command, CommandLine::Shell(_)));
}

#[test]
fn a_target_port_defaults_to_the_port_and_the_protocol_to_auto() {
    let mesh = parse("services: {db: {command: [db], port: 5432}}").unwrap();
    assert_eq!(
        mesh.services[0].port,
        Some(ServicePort { port: 5432, target_port: 5432, protocol: PortProtocol::Auto })
    );
}

#[test]
fn every_refusal_names_file_line_field_found_and_allowed() {
    for (text, expected) in [
        (
            "services:\n  web:\n    command: [a]\n    prot: 80\n",
            "mesh.yaml:4:5: services.web: unknown field `prot`, expected one of `command`",
        ),
        ("services:\n  web:\n    port: 80\n", "services.web: missing field `command`"),
        (
            "services:\n  web:\n    command: [a]\n    port: 70000\n",
            "mesh.yaml:4:11: services.web.port: found 70000, allowed: 1..=65535",
        ),
        ("services:\n  web:\n    command: [a]\n    port: -1\n", "found -1, allowed: 1..=65535"),
        ("services:\n  web:\n    command: [a]\n    replicas: 51\n", "services.web.replicas: found 51, allowed: 0..=50"),
        ("services:\n  web:\n    command: [a]\n    replicas: two\n", "expected a whole number from 0 to 50"),
        (
            "services:\n  web:\n    command: [a]\n    port: 80\n    protocol: udp\n",
            "unknown variant `udp`, expected one of `http`, `http1`, `http2`, `grpc`, `tcp`, `tls`, `auto`",
        ),
        ("services:\n  web:\n    command: []\n", "found an empty list, allowed: a program and its arguments"),
        ("services:\n  web:\n    command: ''\n", "found an empty command, allowed: a program"),
        ("services:\n  web:\n    command: {a: b}\n", "expected a command: a list like"),
        ("services:\n  web:\n    command: [a]\n    env: {A: 1.10}\n", "must be quoted"),
        ("services:\n  web: {command: [a]}\n  web: {command: [b]}\n", "found `web` twice, allowed: once"),
        (
            "services:\n  web:\n    command: [a]\n    targetPort: 80\n",
            "mesh.yaml:4: services.web.targetPort: found 80 without `port`",
        ),
        (
            "services:\n  web:\n    command: [a]\n    protocol: http\n",
            "mesh.yaml:4: services.web.protocol: found without `port`",
        ),
        (
            "services:\n  web:\n    command: [a]\n    port: 80\n    targetPort: 15001\n",
            "mesh.yaml:5: services.web.targetPort: found 15001",
        ),
        (
            "services:\n  web:\n    command: [a]\n    replicaEnv: [{}, {}]\n",
            "mesh.yaml:4: services.web.replicaEnv: found 2 entries, allowed: at most one per replica (1)",
        ),
        ("services:\n  Web: {command: [a]}\n", "mesh.yaml:2: services.Web: found a name that is no host name"),
        ("services:\n  localhost: {command: [a]}\n", "services.localhost: found `localhost`"),
        (
            "services:\n  web: {command: [a]}\n  web-1: {command: [a]}\n",
            "mesh.yaml:3: services.web-1: found the name of a workload of `web`",
        ),
        ("services: {}\n", "services: found none, allowed: at least one"),
        (
            "services:\n  web:\n    command: [a]\n    env: {'A=B': c}\n",
            "services.web.env: found the name or value of \"A=B\"",
        ),
        ("mtls: maybe\nservices: {}\n", "mtls: unknown variant `maybe`, expected `strict` or `permissive`"),
        ("", "missing field `services`"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}\nsaid: {error}\nexpected: {expected}");
        assert!(error.starts_with("mesh.yaml:"), "{error}");
    }
}

#[test]
fn rules_between_fields_are_reported_together() {
    let error = parse("services:\n  Web: {command: [a], targetPort: 1}\n  localhost: {command: [a]}\n").unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
}

#[test]
fn a_service_says_whether_it_reads_its_port() {
    for (command, uses) in
        [("[app, --port, '${PORT}']", true), ("app --port $PORT", true), ("[app]", false), ("app --port 80", false)]
    {
        let mesh = parse(&format!("services: {{web: {{command: {command}, port: 80}}}}")).unwrap();
        assert_eq!(mesh.services[0].uses_port_variable(), uses, "{command}");
    }
}
