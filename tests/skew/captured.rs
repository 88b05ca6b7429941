//! A workload that is captured as a whole, as pods of a cluster are: what its proxy is told came with 0.2.0.

use redb::{Database, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use weft_tests::process::application::Application;
use weft_tests::process::pair;
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, Programs, holds, http, until};

use crate::earlier::{self, Earlier};

const DOCUMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("documents");

/// Makes a stored workload one that is captured: files have no word for it, only a cluster's discovery says so.
fn capture(plane: &Plane, workload: &str) {
    let row = format!("Workload/default/{workload}");
    let database = Database::open(plane.data().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut documents = transaction.open_table(DOCUMENTS).unwrap();
        let record = documents.get(row.as_str()).unwrap().unwrap().value().to_vec();
        let mut record: Value = serde_json::from_slice(&record).unwrap();
        record["document"]["spec"]["captured"] = json!({"exceptPorts": [15020]});
        documents.insert(row.as_str(), record.to_string().as_bytes()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Names of what a proxy has of a kind, by its own word.
fn names(proxy: &Sidecar, kind: &str) -> Vec<String> {
    let dump = proxy.dump();
    let name = |it: &Value| it["name"].as_str().unwrap_or_default().to_owned();
    dump[kind].as_array().into_iter().flatten().map(name).collect()
}

fn is_current(plane: &Plane, proxy: &Sidecar) {
    until(&format!("{} is up to date", proxy.workload()), || {
        let found = plane.proxy(&proxy.workload()).ok_or("it is not connected")?;
        let current = found["appliedRevision"] == plane.revision() && found["pending"] == 0 && found["nack"] == "";
        holds(current, || found.to_string())
    });
}

#[track_caller]
fn serves(Earlier { version, programs }: &Earlier) {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    let application = Application::start("echo-1");
    let [outbound, inbound] = [Port::reserve(), Port::reserve()];
    plane.apply(&pair::documents(&application, inbound.address()));
    let tokens = ["echo", "client"].map(|account| plane.token(account));
    plane.stop();
    capture(&plane, "echo-1");
    plane.start_again();

    let [of_server, of_client] = tokens;
    let server = Settings::with_token("echo-1", "echo", of_server).inbound(&inbound, application.address());
    let mut server = server.of(programs).start(&plane);
    let client = Settings::with_token("client-1", "client", of_client).outbound(&outbound, pair::virtual_address());
    let client = client.start(&plane);
    for proxy in [&server, &client] {
        proxy.ready();
        is_current(&plane, proxy);
    }
    assert_eq!(http::curl(outbound.address(), "/"), (200, "echo-1\n".to_owned()), "{version}");
    assert_eq!(names(&server, "listeners").len(), 2, "{version}: of the service, and of its own port");

    // The proxy that comes after it is told all.
    server.process.kill();
    server.start_again_as(&Programs::ours());
    server.ready();
    is_current(&plane, &server);
    assert!(names(&server, "listeners").contains(&"inbound/any".to_owned()), "{:?}", names(&server, "listeners"));
    assert_eq!(http::curl(outbound.address(), "/"), (200, "echo-1\n".to_owned()), "{version}, replaced");
    println!("ok {version} beside a workload that is captured as a whole");
}

#[test]
fn an_earlier_proxy_serves_a_workload_that_is_captured_as_a_whole_in_the_form_it_knows() {
    earlier::all().iter().for_each(serves);
}
