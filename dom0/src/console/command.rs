//! What can be typed at the prompt: the verbs of `xl`, as far as they make sense here.

use alloc::format;
use alloc::string::{String, ToString};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Shows the domains.
    List,
    /// Starts a guest from its description.
    Create(String),
    /// Gives the terminal to a guest.
    Console(String),
    /// Holds a guest.
    Pause(String),
    /// Lets a guest run on.
    Unpause(String),
    /// Asks a guest to power off.
    Shutdown(String),
    /// Asks a guest to reboot.
    Reboot(String),
    /// Ends a guest at once.
    Destroy(String),
    /// Shows the hypervisor's messages.
    Dmesg,
    /// Shows what the hypervisor is.
    Info,
    /// Shows the store.
    StoreList(String),
    /// Powers the machine off.
    Poweroff,
    /// Shows this list.
    Help,
}

struct Verb {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    make: fn(String) -> Command,
}

const VERBS: [Verb; 13] = [
    Verb { name: "list", argument: "", help: "show the domains", make: |_| Command::List },
    Verb {
        name: "create",
        argument: "FILE",
        help: "start the guest that FILE or /guests/FILE.toml describes",
        make: Command::Create,
    },
    Verb {
        name: "console",
        argument: "GUEST",
        help: "give it the terminal; Ctrl-] takes it back",
        make: Command::Console,
    },
    Verb { name: "pause", argument: "GUEST", help: "hold it", make: Command::Pause },
    Verb { name: "unpause", argument: "GUEST", help: "let it run on", make: Command::Unpause },
    Verb { name: "shutdown", argument: "GUEST", help: "ask it to power off", make: Command::Shutdown },
    Verb { name: "reboot", argument: "GUEST", help: "ask it to reboot", make: Command::Reboot },
    Verb { name: "destroy", argument: "GUEST", help: "end it at once", make: Command::Destroy },
    Verb { name: "dmesg", argument: "", help: "show the hypervisor's messages", make: |_| Command::Dmesg },
    Verb { name: "info", argument: "", help: "show what the hypervisor is", make: |_| Command::Info },
    Verb { name: "xenstore-ls", argument: "PATH", help: "show the store from PATH on", make: Command::StoreList },
    Verb {
        name: "poweroff",
        argument: "",
        help: "end all guests and power the machine off",
        make: |_| Command::Poweroff,
    },
    Verb { name: "help", argument: "", help: "show this", make: |_| Command::Help },
];

/// Reads a line; an empty one is no command.
///
/// # Errors
/// One line that names what is wrong and the cure.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "xl");
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let verb = VERBS.iter().find(|verb| verb.name == name);
    let verb = verb.ok_or_else(|| format!("unknown command \"{name}\": type help"))?;
    let argument = words.next();
    if let Some(more) = words.next().or(argument.filter(|_| verb.argument.is_empty())) {
        return Err(format!("\"{more}\" is too much: write {}", usage(verb)));
    }
    match argument {
        None if verb.name == "xenstore-ls" => Ok(Some(Command::StoreList("/".to_string()))),
        None if !verb.argument.is_empty() => Err(format!("something is missing: write {}", usage(verb))),
        _ => Ok(Some((verb.make)(argument.unwrap_or("").to_string()))),
    }
}

fn usage(verb: &Verb) -> String {
    format!("{} {}", verb.name, verb.argument).trim_end().to_string()
}

/// The list of commands.
pub fn help() -> String {
    let lines = VERBS.iter().map(|verb| format!("{:<20} {}\n", usage(verb), verb.help));
    lines.collect::<String>().trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_with_and_without_xl() {
        assert_eq!(parse("xl list"), Ok(Some(Command::List)));
        assert_eq!(parse("  console demo "), Ok(Some(Command::Console("demo".into()))));
        assert_eq!(parse("xenstore-ls"), Ok(Some(Command::StoreList("/".into()))));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn mistakes_are_one_line_with_the_cure() {
        assert_eq!(parse("lst"), Err("unknown command \"lst\": type help".into()));
        assert_eq!(parse("destroy"), Err("something is missing: write destroy GUEST".into()));
        assert_eq!(parse("pause a b"), Err("\"b\" is too much: write pause GUEST".into()));
        assert_eq!(parse("list a"), Err("\"a\" is too much: write list".into()));
    }

    #[test]
    fn help_names_every_verb_once_a_line() {
        assert_eq!(help().lines().count(), VERBS.len());
    }
}
