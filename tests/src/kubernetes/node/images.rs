//! What images stand for: our own programs as they were built, and programs of this machine for applications.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mesh::machine;
use crate::process::program;

/// Images of the control plane that tests made: their names, and the proxy program in each.
static CONTROL_PLANES: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// Makes an image of the control plane with another proxy program in it.
pub(super) fn make_control_plane(name: &str, proxy: PathBuf) {
    lock(&CONTROL_PLANES).insert(name.to_owned(), proxy);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// What runs when a container names no command.
    pub(super) entry_point: Vec<String>,
    /// The programs that are in it, and where; none for all that this machine has.
    pub(super) programs: Vec<(PathBuf, String)>,
    /// User and group of a container that names none.
    pub(super) user: u32,
}

impl Image {
    /// The image of that reference, by the last part of its repository's name. `None` for one that cannot be pulled.
    pub(super) fn find(reference: &str) -> Option<Self> {
        let name = reference.rsplit('/').next()?.split(['@', ':']).next()?;
        if let Some(proxy) = lock(&CONTROL_PLANES).get(name) {
            return Some(Self::control_plane(proxy.clone()));
        }
        Some(match name {
            // As in the container files under k8s/images.
            "weft" => Self::control_plane(program("weft-proxy")),
            "weft-proxy" => Self::of("weft-proxy", &["/weft-proxy"], 14001),
            "shop" => Self::of("weft", &["/weft", "shop"], 65532),
            "load" => Self::of("weft", &["/weft", "load"], 65532),
            "python" => Self::machine(&[&machine::python()]),
            "curl" => Self::machine(&["curl"]),
            "shell" => Self::machine(&["sh"]),
            _ => return None,
        })
    }

    /// The control plane, with a program to give to running proxies.
    fn control_plane(proxy: PathBuf) -> Self {
        let mut image = Self::of("weft", &["/weft"], 65532);
        image.programs.push((proxy, "/weft-proxy".to_owned()));
        image
    }

    fn of(name: &str, entry_point: &[&str], user: u32) -> Self {
        let entry_point = entry_point.iter().map(ToString::to_string).collect();
        Self { entry_point, programs: vec![(program(name), format!("/{name}"))], user }
    }

    fn machine(entry_point: &[&str]) -> Self {
        Self { entry_point: entry_point.iter().map(ToString::to_string).collect(), programs: Vec::new(), user: 0 }
    }
}
