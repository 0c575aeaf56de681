//! A command line: words, quotes, `;`.
//!
//! The shell knows nothing about commands; a kernel binary brings a table of them ([`Command`]). Each prints what it has to
//! say and returns a status, 0 when it went well.

use alloc::string::String;
use alloc::vec::Vec;

use crate::boot;
use crate::{console, print, println};

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What follows it.
    pub usage: &'static str,
    /// What it does, for `help`.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&[String]) -> i32,
}

/// Status of a line that cannot be understood.
pub const STATUS_SYNTAX: i32 = 2;
/// Status of a command that does not exist.
pub const STATUS_NOT_FOUND: i32 = 127;

/// Why a line cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyntaxError {
    /// A quote that is not closed.
    OpenQuote(char),
}

impl core::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "a {quote} is not closed"),
        }
    }
}

/// Splits a line into commands and each command into words. `;` separates commands, blanks separate words, `'…'` and `"…"`
/// keep both, `\` keeps the next character (not within `'…'`).
///
/// # Errors
/// [`SyntaxError`].
pub fn parse(line: &str) -> Result<Vec<Vec<String>>, SyntaxError> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (Some('\''), char) => word.get_or_insert_default().push(char),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), char) => word.get_or_insert_default().push(char),
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ';') => {
                words.extend(word.take());
                commands.extend(non_empty(&mut words));
            }
            (None, char) if char.is_whitespace() => words.extend(word.take()),
            (None, char) => word.get_or_insert_default().push(char),
        }
    }
    if let Some(quote) = quote {
        return Err(SyntaxError::OpenQuote(quote));
    }
    words.extend(word);
    commands.extend(non_empty(&mut words));
    Ok(commands)
}

fn non_empty(words: &mut Vec<String>) -> Option<Vec<String>> {
    let words = core::mem::take(words);
    (!words.is_empty()).then_some(words)
}

/// A shell with its commands.
#[derive(Clone, Copy)]
pub struct Shell {
    /// What can be typed.
    pub commands: &'static [Command],
    /// What is printed before a line is read.
    pub prompt: &'static str,
}

impl Shell {
    /// Runs all commands of a line; the status of the last one that failed, or 0.
    pub fn run_line(&self, line: &str) -> i32 {
        let commands = match parse(line) {
            Ok(commands) => commands,
            Err(error) => {
                println!("shell: {error}");
                return STATUS_SYNTAX;
            }
        };
        commands.iter().fold(0, |failed, words| match self.run_command(words) {
            0 => failed,
            status => status,
        })
    }

    fn run_command(&self, words: &[String]) -> i32 {
        let Some((name, arguments)) = words.split_first() else {
            return 0;
        };
        if name == "help" {
            self.help();
            return 0;
        }
        match self.commands.iter().find(|command| command.name == name) {
            Some(command) => (command.run)(arguments),
            None => {
                println!("{name}: no such command; `help` lists them");
                STATUS_NOT_FOUND
            }
        }
    }

    fn help(&self) {
        for command in self.commands {
            let usage = alloc::format!("{} {}", command.name, command.usage);
            println!("  {usage:30} {}", command.about);
        }
    }

    /// Runs what the option `exec` of the kernel's command line asks for, framed so that a host can cut it out of the
    /// console: `\x1eexec-begin`, the output, `\x1eexec-end STATUS`. `None` when there is no such option.
    pub fn run_exec_option(&self) -> Option<i32> {
        let line = boot::option("exec")?;
        println!("\x1eexec-begin");
        let status = self.run_line(&line);
        println!("\x1eexec-end {status}");
        Some(status)
    }

    /// Reads lines from the console and runs them, for ever.
    pub fn interact(&self) -> ! {
        loop {
            print!("{}", self.prompt);
            let line = console::read_line();
            self.run_line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn words(line: &str) -> Vec<Vec<String>> {
        parse(line).expect("a good line")
    }

    #[test]
    fn blanks_separate_words_and_semicolons_commands() {
        assert_eq!(
            words("  ls  /disk ;; cat /disk/a.txt;ps"),
            vec![vec!["ls", "/disk"], vec!["cat", "/disk/a.txt"], vec!["ps"]]
        );
        assert_eq!(words("   ;  "), Vec::<Vec<String>>::new());
    }

    #[test]
    fn quotes_keep_blanks_and_semicolons() {
        assert_eq!(words(r#"write 'a b' "x;'y" c\;d"#), vec![vec!["write", "a b", "x;'y", "c;d"]]);
        assert_eq!(words("echo ''"), vec![vec!["echo", ""]]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert_eq!(parse("cat 'a"), Err(SyntaxError::OpenQuote('\'')));
        assert_eq!(parse("cat \"a"), Err(SyntaxError::OpenQuote('"')));
    }

    #[test]
    fn the_last_failure_is_the_status_of_a_line() {
        fn good(_: &[String]) -> i32 {
            0
        }
        fn bad(_: &[String]) -> i32 {
            7
        }
        let command = |name, run| Command { name, usage: "", about: "", run };
        static COMMANDS: spin::Once<Vec<Command>> = spin::Once::new();
        let commands = COMMANDS.call_once(|| vec![command("good", good), command("bad", bad)]);
        let shell = Shell { commands, prompt: "" };
        assert_eq!(shell.run_line("good; bad; good"), 7);
        assert_eq!(shell.run_line("good"), 0);
        assert_eq!(shell.run_line("bad; nothing"), STATUS_NOT_FOUND);
        assert_eq!(shell.run_line("good '"), STATUS_SYNTAX);
    }
}
