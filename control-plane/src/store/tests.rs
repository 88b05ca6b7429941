use proptest::prelude::*;

use super::*;
use crate::document::{Kind, Source, read};

fn documents(text: &str) -> Vec<Located> {
    read(&[Source { name: "a.yaml".into(), text: text.into() }]).unwrap()
}

fn service(name: &str, extra: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: 80}}]\n  selector: {{app: a}}\n  {extra}\n"
    )
}

fn apply(store: &Store, text: &str) -> Result<Outcome, StoreError> {
    store.change(Batch { apply: documents(text), delete: Vec::new() }, &signature("someone", 100))
}

fn signature(author: &str, at: i64) -> Signature {
    Signature { author: author.into(), at }
}

fn key(name: &str) -> Key {
    Key::new(Kind::Service, "default", name)
}

fn addresses(store: &Store, name: &str) -> Vec<String> {
    match &store.snapshot().documents[&key(name)].document {
        Document::Service(service) => service.spec.addresses.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let before = {
        let store = Store::open(directory.path()).unwrap();
        apply(&store, &(service("a", "") + &service("b", ""))).unwrap();
        apply(&store, &service("a", "addresses: [10.1.1.1]")).unwrap();
        store.snapshot()
    };
    assert_eq!(before.revision, 2);
    assert_eq!(before.documents[&key("a")].revision, 2);
    assert_eq!(before.documents[&key("b")].revision, 1);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.snapshot(), before);
}

/// Does something to the file behind the store's back.
fn edit(directory: &Path, edit: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::create(directory.join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    edit(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_store_of_a_later_form_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    apply(&Store::open(directory.path()).unwrap(), &service("a", "")).unwrap();
    let set = |form: u64| {
        edit(directory.path(), |it| drop(it.open_table(FORMAT).unwrap().insert(FORMAT_ROW, form).unwrap()));
    };
    set(THIS_FORMAT + 1);
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, .. } if found == THIS_FORMAT + 1), "{error:?}");
    assert!(error.to_string().contains("is of form 2, this version reads up to 1; start the version"), "{error}");
    assert_eq!(Store::open(directory.path()).unwrap_err().to_string(), error.to_string(), "it stays so");
    set(THIS_FORMAT);
    assert_eq!(Store::open(directory.path()).unwrap().snapshot().revision, 1);
}

#[test]
fn a_store_from_before_forms_were_told_is_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    apply(&Store::open(directory.path()).unwrap(), &service("a", "")).unwrap();
    edit(directory.path(), |it| assert!(it.delete_table(FORMAT).unwrap()));
    assert_eq!(Store::open(directory.path()).unwrap().snapshot().revision, 1);
}

#[test]
fn an_unchanged_apply_makes_no_revision_and_wakes_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let subscriber = store.subscribe();
    let outcome = apply(&store, &service("a", "")).unwrap();
    assert_eq!(outcome.changes, [(key("a"), Action::Unchanged)]);
    assert_eq!(store.snapshot().revision, 1);
    assert!(!subscriber.has_changed().unwrap());
    apply(&store, &(service("a", "") + &service("b", ""))).unwrap();
    assert!(subscriber.has_changed().unwrap());
}

#[test]
fn the_log_tells_who_changed_what_from_what_to_what() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "addresses: [10.1.1.1]")).unwrap();
    let batch = Batch { apply: documents(&service("b", "addresses: [10.1.1.1]")), delete: vec![key("a")] };
    store.change(batch, &signature("else", 200)).unwrap();
    let history = store.history(10).unwrap();
    assert_eq!(
        history.iter().map(|r| (r.number, r.at, r.author.as_str())).collect::<Vec<_>>(),
        [(2, 200, "else"), (1, 100, "someone")]
    );
    let [created, deleted] = &history[0].changes[..] else { panic!("{history:#?}") };
    assert_eq!((created.name.as_str(), created.action, created.before.is_none()), ("b", Action::Created, true));
    assert_eq!((deleted.name.as_str(), deleted.action, deleted.after.is_none()), ("a", Action::Deleted, true));
    assert_eq!(deleted.before.as_ref().unwrap()["spec"]["addresses"][0], "10.1.1.1");
}

#[test]
fn addresses_once_given_are_kept_when_the_document_comes_without() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let given = addresses(&store, "a");
    assert!(given[0].starts_with("10.96.") && given[1].starts_with("fd57::1:"), "{given:?}");
    apply(&store, &service("a", "").replace("80", "81")).unwrap();
    assert_eq!(addresses(&store, "a"), given);
}

#[test]
fn an_address_of_another_service_is_refused_and_nothing_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let taken = addresses(&store, "a").remove(0);
    let text = service("b", "") + &service("c", &format!("addresses: [10.1.1.1, {taken}]"));
    let refusal = apply(&store, &text).unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!(
            "a.yaml:10:1: Service default/c: spec.addresses[1]: {taken} already belongs to Service default/a; choose another, or leave it out to be given one"
        )
    );
    assert_eq!(store.snapshot().documents.len(), 1);
    assert_eq!(store.snapshot().revision, 1);
}

#[test]
fn an_address_asked_for_wins_over_one_only_chosen_in_the_same_batch() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let first_choice = addresses(&store, "a").remove(0);
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).unwrap();
    apply(&store, &(service("a", "") + &service("b", &format!("addresses: [{first_choice}]")))).unwrap();
    assert_ne!(addresses(&store, "a")[0], first_choice);
    assert_eq!(addresses(&store, "b"), [first_choice]);
}

#[test]
fn deleting_what_is_missing_names_it_and_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let batch = Batch { apply: Vec::new(), delete: vec![key("a"), key("b")] };
    let refusal = store.change(batch, &signature("someone", 1)).unwrap_err().to_string();
    assert_eq!(refusal, "Service default/b does not exist; list what does with: weft get -A");
    assert_eq!(store.snapshot().documents.len(), 1);
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    apply(&store, &service("a", "")).unwrap();
    let before = store.snapshot();
    let batch = Batch { apply: documents(&service("b", "")), delete: vec![key("a")] };
    let outcome = store.dry_run(batch, &signature("someone", 1)).unwrap();
    assert_eq!(outcome.changes, [(key("b"), Action::Created), (key("a"), Action::Deleted)]);
    assert_eq!(outcome.snapshot.documents.keys().collect::<Vec<_>>(), [&key("b")]);
    assert_eq!(store.snapshot(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Batches of applied and deleted services, some asking for one of three addresses.
    #[test]
    fn any_batch_is_done_as_a_whole_or_not_at_all(
        batches in prop::collection::vec(
            (prop::collection::btree_map(0u8..6, prop::option::of(1u8..4), 0..5), prop::collection::btree_set(0u8..6, 0..3)),
            1..6,
        )
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for (applied, deleted) in batches {
            let text: String = applied
                .iter()
                .map(|(name, address)| service(&format!("s{name}"), &address.map_or(String::new(), |a| format!("addresses: [10.1.1.{a}]"))))
                .collect();
            let apply = if text.is_empty() { Vec::new() } else { documents(&text) };
            let delete: Vec<Key> = deleted.iter().map(|name| key(&format!("s{name}"))).collect();
            let before = store.snapshot();
            match store.change(Batch { apply: apply.clone(), delete: delete.clone() }, &signature("p", 1)) {
                Err(_) => prop_assert_eq!(&store.snapshot(), &before),
                Ok(outcome) => {
                    let after = store.snapshot();
                    prop_assert_eq!(&outcome.snapshot, &after);
                    for located in &apply {
                        prop_assert!(after.documents.contains_key(&located.document.key()));
                    }
                    for key in delete.iter().filter(|key| !apply.iter().any(|located| located.document.key() == **key)) {
                        prop_assert!(!after.documents.contains_key(key));
                    }
                    let changed = outcome.changes.iter().any(|(_, action)| *action != Action::Unchanged);
                    prop_assert_eq!(after.revision, before.revision + u64::from(changed));
                }
            }
            let mut owners = std::collections::HashSet::new();
            for stored in store.snapshot().documents.values() {
                let Document::Service(service) = &stored.document else { continue };
                prop_assert!(!service.spec.addresses.is_empty());
                for address in &service.spec.addresses {
                    prop_assert!(owners.insert(*address), "{} has two owners", address);
                }
            }
        }
        let last = store.snapshot();
        drop(store);
        prop_assert_eq!(&Store::open(directory.path()).unwrap().snapshot(), &last);
    }
}
