//! What the guest tests checked, as `cargo xtask test --record` wrote it down (xtask: `verdicts.rs`).

use std::path::Path;

/// One check of a guest test, which ended on hv and on Xen as it should.
pub(crate) struct Check {
    /// The guest test.
    pub(crate) test: String,
    /// The operations that it is about.
    pub(crate) about: Vec<String>,
    /// The rules that hv named.
    pub(crate) rules: Vec<String>,
    /// Whether hv and Xen answer differently, on purpose.
    pub(crate) differs: bool,
}

/// All checks, in order of the tests' names.
pub(crate) fn all() -> Vec<Check> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-tests/verdicts"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("guest-tests/verdicts can be read")
        .map(|entry| entry.expect("guest-tests/verdicts can be read").path())
        .collect();
    files.sort();
    files.iter().flat_map(|path| of(path)).collect()
}

fn of(path: &Path) -> Vec<Check> {
    let test = path.file_stem().and_then(|stem| stem.to_str()).expect("a test's name").to_owned();
    let text = std::fs::read_to_string(path).expect("a list of checks can be read");
    let words = |field: Option<&&str>| -> Vec<String> {
        field.map_or(Vec::new(), |field| field.split_whitespace().map(str::to_owned).collect())
    };
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            Check {
                test: test.clone(),
                about: words(fields.get(1)),
                rules: words(fields.get(2)),
                differs: fields.get(3).is_some_and(|field| field.trim() == "differs"),
            }
        })
        .collect()
}
