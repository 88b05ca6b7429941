//! Join tokens: bound, expiring, hashed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::ca::{JoinTokens, TokenError};

const HOUR: Duration = Duration::from_hours(1);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

#[test]
fn a_token_proves_its_identity_as_often_as_needed_until_it_expires() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    let token = tokens.create("default", "orders", HOUR, at(0)).unwrap();
    assert_eq!(token.expires_at, at(3600));
    for seconds in [0, 1, 3599] {
        tokens.verify(token.reveal(), "default", "orders", at(seconds)).unwrap();
    }
    let error = tokens.verify(token.reveal(), "default", "orders", at(3600)).unwrap_err();
    assert!(matches!(error, TokenError::Expired), "{error}");
}

#[test]
fn a_token_proves_no_other_identity() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    let token = tokens.create("default", "orders", HOUR, at(0)).unwrap();
    for (namespace, account) in [("default", "payments"), ("other", "orders"), ("", ""), ("default/sa", "orders")] {
        let error = tokens.verify(token.reveal(), namespace, account, at(1)).unwrap_err();
        assert!(matches!(error, TokenError::OtherIdentity { .. }), "{namespace}/{account}: {error}");
    }
}

#[test]
fn an_unknown_token_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    let text = tokens.create("default", "orders", HOUR, at(0)).unwrap().reveal().to_owned();
    let longer = format!("{text}0");
    for wrong in ["", "weft-join-", &text[..text.len() - 1], &longer, &text.to_uppercase()] {
        let error = tokens.verify(wrong, "default", "orders", at(1)).unwrap_err();
        assert!(matches!(error, TokenError::Unknown), "{wrong}: {error}");
    }
}

#[test]
fn tokens_survive_a_restart_as_hashes_in_a_private_file() {
    let data = tempfile::tempdir().unwrap();
    let token = JoinTokens::open(data.path(), at(0)).unwrap().create("default", "orders", HOUR, at(0)).unwrap();
    let path = data.path().join("ca/tokens.json");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let stored = fs::read_to_string(&path).unwrap();
    let secret = token.reveal().strip_prefix("weft-join-").unwrap();
    assert_eq!(secret.len(), 64);
    assert!(!stored.contains(secret), "{stored}");
    let reopened = JoinTokens::open(data.path(), at(10)).unwrap();
    reopened.verify(token.reveal(), "default", "orders", at(10)).unwrap();
}

#[test]
fn expired_tokens_are_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    tokens.create("default", "old", HOUR, at(0)).unwrap();
    tokens.create("default", "new", HOUR, at(4000)).unwrap();
    let stored = fs::read_to_string(data.path().join("ca/tokens.json")).unwrap();
    assert!(stored.contains("new") && !stored.contains("old"), "{stored}");
}

#[test]
fn what_cannot_be_an_identity_or_a_life_gets_no_token() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    for (namespace, account) in [("", "a"), ("a", ""), ("a/b", "c"), ("..", "a"), ("a b", "c")] {
        let error = tokens.create(namespace, account, HOUR, at(0)).unwrap_err();
        assert!(matches!(error, TokenError::Name { .. }), "{namespace}/{account}: {error}");
    }
    for life in [Duration::ZERO, Duration::from_millis(999), Duration::from_hours(366 * 24), Duration::MAX] {
        let error = tokens.create("default", "orders", life, at(0)).unwrap_err();
        assert!(matches!(error, TokenError::Life(_)), "{life:?}: {error}");
    }
}

#[test]
fn a_token_that_could_not_be_written_is_not_in_force() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    fs::remove_dir_all(data.path().join("ca")).unwrap();
    assert!(matches!(tokens.create("default", "orders", HOUR, at(0)).unwrap_err(), TokenError::File(_)));
    assert!(!format!("{tokens:?}").contains("orders"));
}

#[test]
fn a_damaged_file_is_named_with_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    JoinTokens::open(data.path(), at(0)).unwrap().create("default", "orders", HOUR, at(0)).unwrap();
    fs::write(data.path().join("ca/tokens.json"), "{").unwrap();
    let error = JoinTokens::open(data.path(), at(0)).unwrap_err().to_string();
    assert!(error.contains("tokens.json") && error.contains("remove it"), "{error}");
}

#[test]
fn a_token_cannot_be_printed() {
    let data = tempfile::tempdir().unwrap();
    let tokens = JoinTokens::open(data.path(), at(0)).unwrap();
    let token = tokens.create("default", "orders", HOUR, at(0)).unwrap();
    assert!(!format!("{token:?} {tokens:?}").contains(token.reveal()));
}
