//! A line cut into words, as a shell does: at blanks, but not within quotes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Cuts a line into words; `'…'` and `"…"` keep blanks.
///
/// # Errors
/// One line: a quote has no end.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                let mut closed = false;
                for inner in letters.by_ref() {
                    closed = inner == letter;
                    if closed {
                        break;
                    }
                    word.push(inner);
                }
                if !closed {
                    return Err(alloc::format!("a quote {letter} has no end: close it"));
                }
            }
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Writes a word so that [`split`] gives it back.
pub fn quote(word: &str) -> String {
    let plain = |letter: char| !letter.is_whitespace() && letter != '\'' && letter != '"';
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    let pieces: Vec<String> = word.split('\'').map(|piece| alloc::format!("'{piece}'")).collect();
    pieces.join("\"'\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_keep_blanks_and_join() {
        let words = split("  block-attach demo 'format=raw, vdev=xvdb'\",r\" ''").expect("good");
        assert_eq!(words, ["block-attach", "demo", "format=raw, vdev=xvdb,r", ""]);
        assert!(split("say 'hello").is_err());
        assert!(split("").expect("good").is_empty());
    }

    proptest! {
        #[test]
        fn a_quoted_word_comes_back(words in prop::collection::vec("[ -~]{0,12}", 0..5)) {
            let line: Vec<String> = words.iter().map(|word| quote(word)).collect();
            prop_assert_eq!(split(&line.join(" ")).expect("quoted"), words);
        }
    }
}
