use std::fs;

use super::*;
use crate::document::{Document, Kind};

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}], selector: {{app: a}}}}\n"
    )
}

/// A data directory, a directory of documents and the store.
struct Setup {
    root: tempfile::TempDir,
    store: Arc<Store>,
}

impl Setup {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("config")).unwrap();
        let store = Arc::new(Store::open(root.path()).unwrap());
        Self { root, store }
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("config").canonicalize().unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.config().join(file), text).unwrap();
    }

    /// `NAME:PORT` of all services.
    fn services(&self) -> Vec<String> {
        services(&self.store)
    }

    fn author(&self, name: &str) -> String {
        self.store.snapshot().documents[&Key::new(Kind::Service, "default", name)].author.clone()
    }
}

fn services(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    snapshot
        .documents
        .values()
        .filter_map(|stored| match &stored.document {
            Document::Service(service) => Some(format!("{}:{}", service.metadata.name, service.spec.ports[0].port)),
            _ => None,
        })
        .collect()
}

#[test]
fn files_added_changed_and_removed_reach_the_store_as_single_revisions() {
    let setup = Setup::new();
    let mut directory = Directory::open(&setup.config()).unwrap();
    setup.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    setup.write("c.yml", &service("c", 1));
    setup.write(".hidden.yaml", "nonsense: [");
    setup.write("notes.txt", "nonsense: [");
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!(
        (setup.services(), setup.store.snapshot().revision),
        (vec!["a:1".into(), "b:1".into(), "c:1".into()], 1)
    );
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!(setup.store.snapshot().revision, 1);
    setup.write("a.yaml", &service("a", 2));
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!((setup.services(), setup.store.snapshot().revision), (vec!["a:2".into(), "c:1".into()], 2));
    assert_eq!(setup.author("a"), format!("file:{}/a.yaml", setup.config().display()));
    fs::remove_file(setup.config().join("c.yml")).unwrap();
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!(setup.services(), ["a:2"]);
}

#[test]
fn the_first_reading_is_all_or_nothing() {
    let setup = Setup::new();
    let mut directory = Directory::open(&setup.config()).unwrap();
    setup.write("a.yaml", &service("a", 1));
    setup.write("b.yaml", &service("b", 0));
    let problems = directory.sync(&setup.store, 1);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("b.yaml:5:23: Service default/b: spec.ports[0].port: "), "{problems:?}");
    assert_eq!(setup.services(), [""; 0]);
    setup.write("b.yaml", &service("b", 1));
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!(setup.services(), ["a:1", "b:1"]);
}

#[test]
fn a_file_that_goes_bad_keeps_its_documents_and_holds_up_nothing_else() {
    let setup = Setup::new();
    let mut directory = Directory::open(&setup.config()).unwrap();
    setup.write("a.yaml", &service("a", 1));
    setup.write("b.yaml", &service("b", 1));
    directory.sync(&setup.store, 1);
    setup.write("a.yaml", "");
    setup.write("b.yaml", &service("b", 2));
    let problems = directory.sync(&setup.store, 1);
    assert!(problems.len() == 1 && problems[0].contains("a.yaml: holds no document"), "{problems:?}");
    assert_eq!(setup.services(), ["a:1", "b:2"]);
    // Reported for as long as it lasts, even when other files change.
    setup.write("b.yaml", &service("b", 3));
    assert_eq!(directory.sync(&setup.store, 1), problems);
    assert_eq!(setup.services(), ["a:1", "b:3"]);
}

#[test]
fn a_document_in_two_files_leaves_the_first_owner_in_force() {
    let setup = Setup::new();
    let mut directory = Directory::open(&setup.config()).unwrap();
    setup.write("b.yaml", &service("x", 1));
    directory.sync(&setup.store, 1);
    setup.write("a.yaml", &service("x", 2));
    setup.write("c.yaml", &service("y", 1));
    let problems = directory.sync(&setup.store, 1);
    assert!(problems.len() == 1 && problems[0].contains("given twice"), "{problems:?}");
    assert_eq!(setup.services(), ["x:1", "y:1"]);
}

#[test]
fn a_document_that_moves_to_another_file_is_never_deleted() {
    let setup = Setup::new();
    let mut directory = Directory::open(&setup.config()).unwrap();
    setup.write("a.yaml", &service("x", 1));
    directory.sync(&setup.store, 1);
    fs::rename(setup.config().join("a.yaml"), setup.config().join("b.yaml")).unwrap();
    assert_eq!(directory.sync(&setup.store, 1), [""; 0]);
    assert_eq!((setup.services(), setup.store.snapshot().revision), (vec!["x:1".into()], 1));
}

#[test]
fn a_file_removed_while_nobody_watched_is_noticed_and_foreign_documents_stay() {
    let setup = Setup::new();
    let foreign = read(&[Source { name: "x".into(), text: service("foreign", 1) }]).unwrap();
    let signature = Signature { author: "someone".into(), at: 1 };
    setup.store.change(Batch { apply: foreign, delete: Vec::new() }, &signature).unwrap();
    setup.write("a.yaml", &service("a", 1));
    setup.write("b.yaml", &service("b", 1));
    Directory::open(&setup.config()).unwrap().sync(&setup.store, 1);
    fs::remove_file(setup.config().join("a.yaml")).unwrap();
    Directory::open(&setup.config()).unwrap().sync(&setup.store, 1);
    assert_eq!(setup.services(), ["b:1", "foreign:1"]);
}

#[test]
fn a_missing_directory_is_refused_by_name() {
    let error = Directory::open(Path::new("/nonexistent/documents")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/documents") && error.contains("--config-dir"), "{error}");
}

/// Polls a condition that another thread brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), met).await.is_ok(), "{what}: not within 20 s");
}

#[tokio::test]
async fn a_watched_directory_follows_editors_that_rename_and_replace() {
    let setup = Setup::new();
    setup.write("a.yaml", &service("a", 1));
    let directory = Directory::open(&setup.config()).unwrap();
    let (sender, problems) = watch::channel(Vec::new());
    let keeper = tokio::spawn(keep(directory, Arc::clone(&setup.store), sender));
    until("first reading", || setup.services() == ["a:1"]).await;
    setup.write(".a.yaml.swp", &service("a", 2));
    fs::rename(setup.config().join(".a.yaml.swp"), setup.config().join("a.yaml")).unwrap();
    until("replaced", || setup.services() == ["a:2"]).await;
    setup.write("a.yaml", "kind: [");
    until("reported", || problems.borrow().len() == 1).await;
    assert_eq!(setup.services(), ["a:2"]);
    setup.write("a.yaml", &service("a", 3));
    until("repaired", || problems.borrow().is_empty() && setup.services() == ["a:3"]).await;
    fs::create_dir(setup.config().join("more")).unwrap();
    setup.write("more/b.yaml", &service("b", 1));
    until("a directory below", || setup.services() == ["a:3", "b:1"]).await;
    fs::remove_file(setup.config().join("a.yaml")).unwrap();
    until("removed", || setup.services() == ["b:1"]).await;
    keeper.abort();
}

#[tokio::test]
async fn a_directory_put_in_the_place_of_another_is_watched_though_none_was_ever_missing() {
    let setup = Setup::new();
    setup.write("a.yaml", &service("a", 1));
    let (config, next) = (setup.config(), setup.root.path().join("next"));
    let (sender, _problems) = watch::channel(Vec::new());
    let keeper = tokio::spawn(keep(Directory::open(&config).unwrap(), Arc::clone(&setup.store), sender));
    until("first reading", || setup.services() == ["a:1"]).await;
    fs::create_dir(&next).unwrap();
    fs::write(next.join("a.yaml"), service("a", 2)).unwrap();
    fs::rename(&config, setup.root.path().join("old")).unwrap();
    fs::rename(&next, &config).unwrap();
    until("what the new one holds", || setup.services() == ["a:2"]).await;
    setup.write("a.yaml", &service("a", 3));
    until("a change in the new one", || setup.services() == ["a:3"]).await;
    keeper.abort();
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_watched_again() {
    let setup = Setup::new();
    setup.write("a.yaml", &service("a", 1));
    let config = setup.config();
    let (sender, problems) = watch::channel(Vec::new());
    let keeper = tokio::spawn(keep(Directory::open(&config).unwrap(), Arc::clone(&setup.store), sender));
    until("first reading", || setup.services() == ["a:1"]).await;
    fs::rename(&config, setup.root.path().join("old")).unwrap();
    until("its absence", || problems.borrow().iter().any(|problem| problem.contains("No such file"))).await;
    assert_eq!(setup.services(), ["a:1"]);
    fs::create_dir(&config).unwrap();
    setup.write("a.yaml", &service("a", 2));
    until("its return", || setup.services() == ["a:2"]).await;
    keeper.abort();
}

/// Told once by its reading and once by its watch, in two ways, this was missed by who looked for the one of them.
#[tokio::test]
async fn an_absent_directory_is_told_in_the_same_words_whoever_misses_it() {
    let setup = Setup::new();
    let config = setup.config();
    let mut directory = Directory::open(&config).unwrap();
    fs::remove_dir(&config).unwrap();
    let expected = directory.sync(&setup.store, 1);
    assert!(expected.len() == 1 && expected[0].contains("No such file"), "{expected:?}");
    let (sender, problems) = watch::channel(Vec::new());
    let keeper = tokio::spawn(keep(directory, Arc::clone(&setup.store), sender));
    until("its absence", || !problems.borrow().is_empty()).await;
    assert_eq!(*problems.borrow(), expected);
    keeper.abort();
}
