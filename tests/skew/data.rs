//! What one version wrote and another reads.

use weft_tests::process::application::Application;
use weft_tests::process::pair::{self, CLUSTER};
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::Settings;
use weft_tests::process::{Port, Programs, command, holds, http, run, until};

use crate::earlier::{self, Earlier};

/// Where `outside` is: a service that is reached in plaintext.
const OUTSIDE: &str = "127.96.0.10:80";

#[track_caller]
fn last_good_configuration_is_read(Earlier { version, programs }: &Earlier) {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start_as(place.path(), &[], programs);
    let [meshed, outside] = ["meshed", "outside"].map(Application::start);
    let entrance = Port::reserve();
    plane.apply(&pair::documents(&meshed, meshed.address()));
    plane.apply(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: outside}}\nspec:\n  addresses: [127.96.0.10]\n  \
         ports: [{{port: 80, protocol: http}}]\n  endpoints: [{{address: 127.0.0.1, port: {}}}]\n",
        outside.port()
    ));
    let state = place.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let settings = Settings::new(&plane, "client-1", "client").outbound(&entrance, OUTSIDE.parse().unwrap());
    let mut client = settings.set("WEFT_STATE_DIR", &state.display()).of(programs).start(&plane);
    client.ready();
    until("the last good configuration is written", || {
        holds(state.join("snapshot").exists(), || "there is no file".to_owned())
    });
    plane.kill();
    client.process.kill();
    client.start_again_as(&Programs::ours());
    until("it waits for a certificate alone", || {
        let answer = client.ask("/ready").map_err(|error| error.to_string())?;
        holds(answer.body.trim() == "waiting for: certificate", || format!("{version}: {answer:?}"))
    });
    assert_eq!(client.endpoints(CLUSTER).len(), 1, "{version}");
    assert_eq!(http::curl(entrance.address(), "/"), (200, "outside\n".to_owned()), "{version}");
}

#[test]
fn this_proxy_starts_from_the_last_good_configuration_of_an_earlier_one() {
    earlier::all().iter().for_each(last_good_configuration_is_read);
}

/// Documents that every version has a word for, a token and an identity live through it.
#[track_caller]
fn directory_is_taken_over(from: &Programs, to: &Programs, what: &str) {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start_as(place.path(), &[], from);
    let application = Application::start("echo");
    plane.apply(&pair::documents(&application, application.address()));
    let (token, bundle) = (plane.token("client"), std::fs::read(plane.bundle()).unwrap());
    plane.stop();
    plane.start_again_as(to);
    assert_eq!(plane.revision(), 1, "{what}");
    assert_eq!(std::fs::read(plane.bundle()).unwrap(), bundle, "{what}");
    let documents = plane.json(&["get", "workload"]);
    assert_eq!(documents.as_array().map(Vec::len), Some(2), "{what}: {documents}");
    plane.apply(&pair::workload("echo-2", application.port(), application.address()));
    assert_eq!(plane.revision(), 2, "{what}");
    let client = Settings::with_token("client-1", "client", token).of(to).start(&plane);
    client.ready();
    println!("ok {what}");
}

#[test]
fn a_data_directory_goes_from_version_to_version_and_back() {
    let ours = Programs::ours();
    for Earlier { version, programs } in earlier::all() {
        directory_is_taken_over(programs, &ours, &format!("from {version} to this"));
        directory_is_taken_over(&ours, programs, &format!("back from this to {version}"));
    }
}

/// A kind of document that 0.0.1 does not know.
const ROUTE: &str = "\
apiVersion: weft.dev/v1alpha1
kind: HTTPRoute
metadata: {name: canary}
spec:
  parentRefs: [{kind: Service, name: echo, port: 80}]
  rules: [{backendRefs: [{name: echo, port: 80}]}]
";

#[test]
fn an_earlier_control_plane_refuses_by_name_what_it_has_no_word_for_and_harms_nothing() {
    let Some(oldest) = earlier::all().first() else { return };
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.apply(&pair::service(8080));
    plane.apply(ROUTE);
    plane.stop();
    let port = Port::reserve();
    let mut older = command(oldest.programs.path("weft"));
    older.args(["control-plane", "--listen", &port.address().to_string()]).env("WEFT_DATA", plane.data());
    let told = run(&mut older).failed(1);
    assert!(told.contains("HTTPRoute/default/canary in a form this version cannot read"), "{told}");
    plane.start_again();
    assert_eq!(plane.revision(), 2);
}
