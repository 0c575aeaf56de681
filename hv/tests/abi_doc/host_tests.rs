//! The rules, and the code of the tests that run on the host, as text.

use std::path::Path;

fn sources(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of hv can be read") {
        let path = entry.expect("a folder of hv can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a file of hv can be read");
            into.push((path.to_string_lossy().into_owned(), text));
        }
    }
}

fn read(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found
}

/// All that only tests are built from.
pub(crate) fn source() -> String {
    let is_of_tests = |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs");
    let mut text = String::new();
    for (path, source) in read("src") {
        match source.find("#[cfg(test)]\nmod tests {") {
            _ if is_of_tests(&path) => text.push_str(&source),
            Some(at) => text.push_str(&source[at..]),
            None => {}
        }
    }
    text.push_str(
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/out_of_memory.rs")).expect("text"),
    );
    text
}

/// Name and id of each rule.
pub(crate) fn rules() -> Vec<(String, String)> {
    let rule = |line: &str| {
        let (name, rest) = line.trim().split_once(" = \"")?;
        let (id, _) = rest.split_once("\", ")?;
        id.rsplit_once('-')?.1.parse::<u32>().ok()?;
        Some((name.to_owned(), id.to_owned()))
    };
    read("src/rules").iter().flat_map(|(_, text)| text.lines().filter_map(rule).collect::<Vec<_>>()).collect()
}

/// Whether a text has a word, of letters and underscores, as a whole.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_of_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    text.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| text.as_bytes().get(before));
        !is_of_word(before) && !is_of_word(text.as_bytes().get(at + word.len()))
    })
}

#[test]
fn the_rules_that_are_read_are_those_that_there_are() {
    assert_eq!(rules().len(), hv::rules::tables().into_iter().flatten().count());
}
