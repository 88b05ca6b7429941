use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_of_the_arguments_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn data_lies_where_the_system_keeps_state() {
    let path = |text: &str| Some(PathBuf::from(text));
    for (is_root, state, home, expected) in [
        (true, path("/x"), path("/root"), "/var/lib/weft"),
        (false, path("/x"), path("/home/a"), "/x/weft"),
        (false, path("relative"), path("/home/a"), "/home/a/.local/state/weft"),
        (false, None, path("/home/a"), "/home/a/.local/state/weft"),
        (false, None, None, "/var/tmp/weft"),
    ] {
        assert_eq!(data_directory(is_root, state, home), PathBuf::from(expected));
    }
}

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    let refused = |arguments: &[&str]| {
        let all = std::iter::once("weft").chain(arguments.iter().copied());
        Arguments::try_parse_from(all).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&["get", "servce"]).contains("did you mean `Service`?"));
    for arguments in [
        &["delete"][..],
        &["delete", "service"],
        &["delete", "service", "a", "-f", "b"],
        &["apply"],
        &["get", "-A", "-n", "x"],
        &["get", "-o", "xml"],
        &["token", "create", "--service-account", "a", "--ttl", "soon"],
        &["control-plane", "--listen", "nowhere"],
    ] {
        assert!(!refused(arguments).is_empty());
    }
}
