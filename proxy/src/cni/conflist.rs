//! The node's network configuration: which file counts, and our entry in it. Pure: texts in, texts out.
//!
//! A runtime takes the first file by name that it can read, a list of plugins (`.conflist`) or a single one (`.conf`,
//! `.json`). Our entry stands last in the list, once; everything else stays as it is. A single plugin becomes a list. What
//! was there before stands beside it, so that it can come back as it was, byte for byte.

use serde_json::{Map, Value, json};
use weft_proto::names::CNI;

/// What a runtime looks at.
const LIST: &str = ".conflist";
const SINGLES: [&str; 2] = [".conf", ".json"];
/// Added to the name of a file while one with our entry stands in its place.
pub(super) const SET_ASIDE: &str = ".before-weft";

/// Why a configuration cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConflistError {
    #[error("it is no JSON: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it has no list of plugins")]
    NoPlugins,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) name: String,
    pub(super) text: String,
}

/// What must be done for our entry to be in the configuration that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mending {
    /// Nothing is configured yet.
    Nothing,
    /// It is there; the file's name.
    Done(String),
    /// Write this file; keep it as it is now, if our entry was not in it.
    Write { file: Configured, keep: Option<Configured> },
    /// Write this list, then set the single plugin's file aside.
    Replace { list: Configured, aside: String },
}

/// What must be done to take it out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Write(Configured),
    /// Put the single plugin's file back in its place, then delete the list.
    PutBack {
        list: String,
        aside: String,
    },
}

/// Our entry. Runtimes that can give us a pod's annotations are asked to.
pub(super) fn entry(exclude_namespaces: &[String]) -> Value {
    json!({
        "type": CNI,
        "capabilities": {"io.kubernetes.cri.pod-annotations": true},
        "excludeNamespaces": exclude_namespaces,
    })
}

/// Whether a runtime would look at a file of this name.
pub(super) fn is_looked_at(name: &str) -> bool {
    name.ends_with(LIST) || SINGLES.iter().any(|single| name.ends_with(single))
}

/// Whether a file is a list as it was before our entry came into it.
pub(super) fn is_kept(name: &str) -> bool {
    name.strip_suffix(SET_ASIDE).is_some_and(|name| name.ends_with(LIST))
}

/// What must be done, by all the files that a runtime would look at.
pub(super) fn mending(files: &[Configured], entry: &Value) -> Mending {
    let mut files: Vec<&Configured> = files.iter().filter(|file| is_looked_at(&file.name)).collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    // One that cannot be read is passed over by the runtime too.
    files.into_iter().find_map(|file| of_file(file, entry).ok()).unwrap_or(Mending::Nothing)
}

fn of_file(file: &Configured, entry: &Value) -> Result<Mending, ConflistError> {
    let mut value: Value = serde_json::from_str(&file.text)?;
    if file.name.ends_with(LIST) {
        let plugins = plugins(&mut value)?;
        let mut wanted: Vec<Value> = plugins.iter().filter(|plugin| !is_ours(plugin)).cloned().collect();
        wanted.push(entry.clone());
        if *plugins == wanted {
            return Ok(Mending::Done(file.name.clone()));
        }
        let is_new = !plugins.iter().any(is_ours);
        *plugins = wanted;
        let keep = is_new.then(|| Configured { name: format!("{}{SET_ASIDE}", file.name), text: file.text.clone() });
        return Ok(Mending::Write { file: Configured { name: file.name.clone(), text: text(&value) }, keep });
    }
    let mut list = Map::new();
    for field in ["cniVersion", "name"] {
        list.extend(value.get(field).map(|found| (field.to_owned(), found.clone())));
    }
    if value.get("type").and_then(Value::as_str).is_none() {
        return Err(ConflistError::NoPlugins);
    }
    list.insert("plugins".to_owned(), json!([value, entry]));
    let stem = SINGLES.iter().find_map(|single| file.name.strip_suffix(single)).unwrap_or(&file.name);
    let list = Configured { name: format!("{stem}{LIST}"), text: text(&Value::Object(list)) };
    Ok(Mending::Replace { list, aside: file.name.clone() })
}

/// What must be done, by all files of the directory.
pub(super) fn removals(files: &[Configured]) -> Vec<Removal> {
    let aside_of = |list: &str| {
        let stem = list.strip_suffix(LIST)?;
        let names = SINGLES.map(|single| format!("{stem}{single}"));
        names.into_iter().find(|name| files.iter().any(|file| file.name == format!("{name}{SET_ASIDE}")))
    };
    // What others have changed since counts more than how it was written before.
    let as_before = |value: &Value, list: &Configured| {
        let kept = files.iter().find(|file| is_kept(&file.name) && file.name.starts_with(&list.name));
        let kept = kept.filter(|kept| serde_json::from_str::<Value>(&kept.text).is_ok_and(|before| before == *value));
        kept.map_or_else(|| text(value), |kept| kept.text.clone())
    };
    let removal = |file: &Configured| {
        let mut value: Value = serde_json::from_str(&file.text).ok()?;
        let plugins = plugins(&mut value).ok()?;
        let before = plugins.len();
        plugins.retain(|plugin| !is_ours(plugin));
        if plugins.len() == before {
            return None;
        }
        Some(match aside_of(&file.name) {
            Some(aside) => Removal::PutBack { list: file.name.clone(), aside },
            None => Removal::Write(Configured { name: file.name.clone(), text: as_before(&value, file) }),
        })
    };
    files.iter().filter(|file| file.name.ends_with(LIST)).filter_map(removal).collect()
}

fn plugins(value: &mut Value) -> Result<&mut Vec<Value>, ConflistError> {
    value.get_mut("plugins").and_then(Value::as_array_mut).ok_or(ConflistError::NoPlugins)
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(CNI)
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, value: &Value) -> Configured {
        Configured { name: name.to_owned(), text: text(value) }
    }

    fn ours() -> Value {
        entry(&["kube-system".to_owned()])
    }

    fn list(plugins: &[Value]) -> Value {
        json!({"cniVersion": "1.0.0", "name": "cluster", "disableCheck": true, "plugins": plugins})
    }

    #[test]
    fn our_entry_stands_last_and_once_in_the_file_that_counts() {
        let (bridge, portmap) = (json!({"type": "bridge", "mtu": 1450}), json!({"type": "portmap"}));
        let old = json!({"type": CNI, "kubeconfig": "/old"});
        let whole = list(&[bridge.clone(), portmap.clone(), ours()]);
        let write = |name: &str, keep: Option<Configured>| Mending::Write { file: file(name, &whole), keep };
        let plain = file("10-a.conflist", &list(&[bridge.clone(), portmap.clone()]));
        let kept = Configured { name: "10-a.conflist.before-weft".to_owned(), text: plain.text.clone() };
        let single = json!({"cniVersion": "0.4.0", "name": "cluster", "type": "bridge"});
        let replaced = json!({"cniVersion": "0.4.0", "name": "cluster", "plugins": [single, ours()]});
        let broken = Configured { name: "00-broken.conflist".to_owned(), text: "{".to_owned() };
        let readme = Configured { name: "00-readme.txt".to_owned(), text: "{}".to_owned() };
        let table = [
            ("nothing", vec![], Mending::Nothing),
            ("nothing a runtime looks at", vec![readme.clone(), broken.clone()], Mending::Nothing),
            ("new", vec![plain.clone()], write("10-a.conflist", Some(kept.clone()))),
            ("there", vec![file("10-a.conflist", &whole)], Mending::Done("10-a.conflist".to_owned())),
            (
                "of an earlier version, twice and in the middle",
                vec![file("a.conflist", &list(&[old.clone(), bridge.clone(), old, portmap.clone()]))],
                write("a.conflist", None),
            ),
            (
                "the first by name that can be read",
                vec![file("20-b.conflist", &list(&[])), broken, readme, plain],
                write("10-a.conflist", Some(kept)),
            ),
            (
                "a single plugin",
                vec![file("10-a.conf", &single), file("10-a.conflist", &whole)],
                Mending::Replace { list: file("10-a.conflist", &replaced), aside: "10-a.conf".to_owned() },
            ),
        ];
        for (what, files, expected) in table {
            assert_eq!(mending(&files, &ours()), expected, "{what}");
        }
    }

    #[test]
    fn what_was_mended_is_done_and_what_is_taken_out_is_as_before() {
        let before = list(&[json!({"type": "bridge"})]);
        let before = Configured { name: "10-a.conflist".to_owned(), text: before.to_string() };
        let Mending::Write { file: after, keep: Some(kept) } = mending(std::slice::from_ref(&before), &ours()) else {
            panic!("nothing to do, or nothing is kept")
        };
        assert!(is_kept(&kept.name) && !is_looked_at(&kept.name) && !is_kept(&after.name));
        assert_eq!(mending(&[after.clone(), kept.clone()], &ours()), Mending::Done(after.name.clone()));
        assert_eq!(removals(&[after.clone(), kept.clone()]), [Removal::Write(before.clone())], "byte for byte");
        assert_eq!(removals(std::slice::from_ref(&before)), []);
        // Somebody has changed it since, or has deleted what was kept: what it says stays.
        let changed = list(&[json!({"type": "bridge"}), json!({"type": "portmap"})]);
        let with_ours = list(&[json!({"type": "bridge"}), json!({"type": "portmap"}), ours()]);
        let expected = [Removal::Write(file(&before.name, &changed))];
        assert_eq!(removals(&[file(&before.name, &with_ours), kept]), expected);
        let expected = [Removal::Write(file(&before.name, &list(&[json!({"type": "bridge"})])))];
        assert_eq!(removals(&[after]), expected);
    }

    #[test]
    fn a_single_plugin_is_put_back() {
        let single = file("10-a.conf", &json!({"name": "cluster", "type": "bridge"}));
        let Mending::Replace { list, aside } = mending(std::slice::from_ref(&single), &ours()) else {
            panic!("no list")
        };
        assert_eq!((list.name.as_str(), aside.as_str()), ("10-a.conflist", "10-a.conf"));
        let set_aside = Configured { name: format!("{aside}{SET_ASIDE}"), ..single };
        assert!(!is_looked_at(&set_aside.name));
        assert_eq!(mending(&[list.clone(), set_aside.clone()], &ours()), Mending::Done(list.name.clone()));
        let expected = Removal::PutBack { list: list.name.clone(), aside };
        assert_eq!(removals(&[list, set_aside]), [expected]);
    }
}
