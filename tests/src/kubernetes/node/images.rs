//! What images stand for: our own programs as they were built, and programs of this machine for applications.

use std::path::PathBuf;

use crate::mesh::machine;
use crate::process::program;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// What runs when a container names no command.
    pub(super) entry_point: Vec<String>,
    /// The one program that is in it; `None` for all that this machine has.
    pub(super) program: Option<(PathBuf, String)>,
    /// User and group of a container that names none.
    pub(super) user: u32,
}

impl Image {
    /// The image of that reference, by the last part of its repository's name. `None` for one that cannot be pulled.
    pub(super) fn find(reference: &str) -> Option<Self> {
        let name = reference.rsplit('/').next()?.split(['@', ':']).next()?;
        Some(match name {
            // As in the container files under k8s/images.
            "weft" => Self::of("weft", &["/weft"], 65532),
            "weft-proxy" => Self::of("weft-proxy", &["/weft-proxy"], 14001),
            "shop" => Self::of("weft", &["/weft", "shop"], 65532),
            "load" => Self::of("weft", &["/weft", "load"], 65532),
            "python" => Self::machine(&[&machine::python()]),
            "curl" => Self::machine(&["curl"]),
            "shell" => Self::machine(&["sh"]),
            _ => return None,
        })
    }

    fn of(name: &str, entry_point: &[&str], user: u32) -> Self {
        let entry_point = entry_point.iter().map(ToString::to_string).collect();
        Self { entry_point, program: Some((program(name), format!("/{name}"))), user }
    }

    fn machine(entry_point: &[&str]) -> Self {
        Self { entry_point: entry_point.iter().map(ToString::to_string).collect(), program: None, user: 0 }
    }
}
