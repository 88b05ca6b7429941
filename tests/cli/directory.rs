//! A directory of documents: what happens in it happens in the mesh.

use std::path::Path;

use serde_json::Value;
use weft_tests::process::plane::Plane;
use weft_tests::process::{holds, until};

fn workload(name: &str, address: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{addresses: [{address}]}}\n"
    )
}

fn names(plane: &Plane) -> Vec<String> {
    let documents = plane.json(&["get", "-A"]);
    let name = |document: &Value| document["metadata"]["name"].as_str().unwrap().to_owned();
    documents.as_array().unwrap().iter().map(name).collect()
}

#[track_caller]
fn has(plane: &Plane, expected: &[&str]) {
    until(&format!("the documents are {expected:?}"), || {
        let found = names(plane);
        holds(found == expected, || format!("{found:?}"))
    });
}

fn problems(plane: &Plane) -> Vec<String> {
    plane.status()["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn start(place: &Path) -> (Plane, std::path::PathBuf) {
    let directory = place.join("documents");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("a.yaml"), workload("a", "10.97.0.1")).unwrap();
    (Plane::start_with(place, &["--config-dir", directory.to_str().unwrap()]), directory)
}

#[test]
fn files_added_changed_and_removed_take_effect() {
    let place = tempfile::tempdir().unwrap();
    let (plane, directory) = start(place.path());
    assert_eq!(names(&plane), ["a"], "read before the first proxy is served");

    std::fs::write(directory.join("b.yml"), workload("b", "10.97.0.2")).unwrap();
    has(&plane, &["a", "b"]);
    std::fs::create_dir(directory.join("more")).unwrap();
    std::fs::write(
        directory.join("more/c.json"),
        r#"{"apiVersion": "weft.dev/v1alpha1", "kind": "Workload",
        "metadata": {"name": "c"}, "spec": {"addresses": ["10.97.0.3"]}}"#,
    )
    .unwrap();
    has(&plane, &["a", "b", "c"]);
    std::fs::write(directory.join("notes.txt"), "no document").unwrap();
    std::fs::write(directory.join(".hidden.yaml"), "no: document").unwrap();

    std::fs::write(directory.join("b.yml"), workload("b", "10.97.0.22")).unwrap();
    until("the change is stored", || {
        let address = plane.json(&["get", "workload", "b"])["spec"]["addresses"][0].clone();
        holds(address == "10.97.0.22", || address.to_string())
    });
    // As editors do: write beside it, then rename.
    std::fs::write(directory.join(".a.yaml.new"), workload("renamed", "10.97.0.1")).unwrap();
    std::fs::rename(directory.join(".a.yaml.new"), directory.join("a.yaml")).unwrap();
    has(&plane, &["b", "c", "renamed"]);
    std::fs::remove_dir_all(directory.join("more")).unwrap();
    has(&plane, &["b", "renamed"]);
    assert_eq!(problems(&plane), Vec::<String>::new());
}

#[test]
fn a_bad_file_is_reported_in_the_status_and_changes_nothing_until_it_is_repaired() {
    let place = tempfile::tempdir().unwrap();
    let (plane, directory) = start(place.path());
    std::fs::write(directory.join("a.yaml"), workload("a", "10.97.0.999")).unwrap();
    let found = until("the problem is reported", || {
        let found = problems(&plane);
        holds(!found.is_empty(), || "no problem is".to_owned()).map(|()| found)
    });
    let place_of_it = format!(
        "{}:4:20: Workload default/a: spec.addresses[0]",
        directory.join("a.yaml").canonicalize().unwrap().display()
    );
    assert!(found.len() == 1 && found[0].contains(&place_of_it) && found[0].contains("`10.97.0.999`"), "{found:?}");
    let status = plane.weft(&["status"]);
    assert!(status.stderr.starts_with("warning: ") && status.stderr.contains("10.97.0.999"), "{status:?}");
    assert_eq!(plane.json(&["get", "workload", "a"])["spec"]["addresses"][0], "10.97.0.1");
    let revision = plane.revision();

    // Other files go on.
    std::fs::write(directory.join("b.yaml"), workload("b", "10.97.0.2")).unwrap();
    has(&plane, &["a", "b"]);
    assert_eq!((plane.revision(), problems(&plane).len()), (revision + 1, 1));

    std::fs::write(directory.join("a.yaml"), workload("a", "10.97.0.9")).unwrap();
    until("the problem is gone", || holds(problems(&plane).is_empty(), || "it is there".to_owned()));
    assert_eq!(plane.json(&["get", "workload", "a"])["spec"]["addresses"][0], "10.97.0.9");
}

#[test]
fn what_changed_while_the_control_plane_was_away_takes_effect_when_it_is_back() {
    let place = tempfile::tempdir().unwrap();
    let (mut plane, directory) = start(place.path());
    plane.apply(&workload("by-hand", "10.97.0.8"));
    plane.kill();
    std::fs::remove_file(directory.join("a.yaml")).unwrap();
    std::fs::write(directory.join("b.yaml"), workload("b", "10.97.0.2")).unwrap();
    plane.start_again();
    assert_eq!(names(&plane), ["b", "by-hand"], "what was applied by hand is not the directory's");
}

#[test]
fn a_first_reading_with_a_bad_file_keeps_what_is_stored() {
    let place = tempfile::tempdir().unwrap();
    let (mut plane, directory) = start(place.path());
    plane.kill();
    std::fs::write(directory.join("a.yaml"), "kind: nonsense\n").unwrap();
    plane.start_again();
    assert_eq!(names(&plane), ["a"]);
    assert!(!problems(&plane).is_empty());
    std::fs::write(directory.join("a.yaml"), workload("a", "10.97.0.7")).unwrap();
    until("the repaired file is read", || holds(problems(&plane).is_empty(), || "the problem is there".to_owned()));
    assert_eq!(plane.json(&["get", "workload", "a"])["spec"]["addresses"][0], "10.97.0.7");
}
