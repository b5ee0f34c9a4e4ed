//! Languages beside Rust that a project can be used from: what each of them adds to it, all below `bindings/`.

use std::collections::BTreeSet;

use askama::Template;

use crate::verbatim;

/// A language that a project has a library for. All but C use the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// C and C++: a library, shared or static, and its header.
    C,
    /// Swift: a package over that.
    Swift,
    /// Python: a module over it, and a script that makes a wheel.
    Python,
}

impl Language {
    /// All of them, in the order of their names' use.
    pub const ALL: [Self; 3] = [Self::C, Self::Swift, Self::Python];

    /// What a user calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Swift => "swift",
            Self::Python => "python",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// Its files that no model changes, beside the C library's sources.
    fn files(self) -> &'static [(&'static str, &'static [u8])] {
        match self {
            Self::C => &[
                ("c/build.rs", include_bytes!("../../../templates/project/bindings/c/build.rs")),
                ("c/story.c", include_bytes!("../../../templates/project/bindings/c/story.c")),
                ("c/include/forge.h", include_bytes!("../../forge-capi/include/forge.h")),
            ],
            Self::Swift => &[
                ("swift/Package.swift", include_bytes!("../../../templates/project/bindings/swift/Package.swift")),
                (
                    "swift/module.modulemap",
                    include_bytes!("../../../templates/project/bindings/swift/module.modulemap"),
                ),
                (
                    "swift/Sources/Forge/Model.swift",
                    include_bytes!("../../../templates/project/bindings/swift/Model.swift"),
                ),
            ],
            Self::Python => {
                &[("python/model.py", include_bytes!("../../../templates/project/bindings/python/model.py"))]
            }
        }
    }
}

/// What the rendered files say of the project.
pub(crate) struct About<'a> {
    pub(crate) title: &'a str,
    pub(crate) name: &'a str,
    pub(crate) library: &'a str,
    pub(crate) version: &'static str,
}

#[derive(Template)]
#[template(path = "project/bindings/README.md")]
struct Readme<'a> {
    title: &'a str,
    name: &'a str,
    library: &'a str,
    version: &'static str,
    swift: bool,
    python: bool,
}

#[derive(Template)]
#[template(path = "project/bindings/python/wheel.py")]
struct Wheel<'a> {
    title: &'a str,
    library: &'a str,
}

/// What those who use another language than Rust have beside `languages`: the C library, where there are any.
fn with_c(languages: &BTreeSet<Language>) -> BTreeSet<Language> {
    if languages.is_empty() { BTreeSet::new() } else { languages.iter().copied().chain([Language::C]).collect() }
}

/// The rendered files of these languages, by their path in the project.
pub(crate) fn rendered(
    languages: &BTreeSet<Language>,
    about: &About<'_>,
) -> Vec<(&'static str, askama::Result<String>)> {
    let About { title, name, library, version } = *about;
    let (swift, python) = (languages.contains(&Language::Swift), languages.contains(&Language::Python));
    let mut files = Vec::new();
    if !languages.is_empty() {
        files.push(("bindings/README.md", Readme { title, name, library, version, swift, python }.render()));
    }
    if python {
        files.push(("bindings/python/wheel.py", Wheel { title, library }.render()));
    }
    files
}

/// The files of these languages that no model changes.
pub(crate) fn copied(languages: &BTreeSet<Language>) -> Vec<(String, &'static [u8])> {
    let languages = with_c(languages);
    let mut files = Vec::new();
    for language in &languages {
        files.extend(language.files().iter().map(|(path, bytes)| (format!("bindings/{path}"), *bytes)));
    }
    if !languages.is_empty() {
        files.extend(verbatim::CAPI.iter().map(|(path, bytes)| (format!("bindings/c/src/{path}"), *bytes)));
    }
    files
}
