//! Compares every struct and constant of the crate with Xen's own C headers.
//!
//! From [`pv_abi::layout::MODULES`] a C program is written that prints what the C compiler makes of each name; it is compiled
//! against the headers of Debian's package `libxen-dev`, run, and its numbers are compared one by one. The other tests see to
//! it that nothing is missing from those tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pv_abi::layout::{Constant, Field, MODULES, Module, Struct};

/// Where `libxen-dev` has its headers.
const INCLUDE: &str = "/usr/include/xen";

/// What the C program begins with: the interface of Xen 4.17, the tools' part of it included.
const PREAMBLE: &str = "\
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/xen.h>
";

/// The generic ring with entries of no size, so that only its head is left.
const RING: &str = "\
struct pv_abi_nothing {};
DEFINE_RING_TYPES(pv_abi_bare, struct pv_abi_nothing, struct pv_abi_nothing);
";

/// A number by its name, as one side has it.
#[derive(Debug, PartialEq, Eq)]
struct Fact {
    what: String,
    value: i128,
}

/// The C type; a name with a dot is the type of that field.
fn c_type(item: &Struct) -> String {
    match item.c_name.split_once('.') {
        Some((whole, field)) => format!("__typeof__((({whole} *)0)->{field})"),
        None => item.c_name.to_owned(),
    }
}

/// Where the field is in its C type.
fn c_field(field: &Field) -> &str {
    field.c_name.unwrap_or_else(|| field.name.strip_suffix('_').unwrap_or(field.name))
}

/// Fields that have a C counterpart.
fn shared_fields(item: &Struct) -> impl Iterator<Item = &Field> {
    item.fields.iter().filter(|field| !field.name.starts_with("_pad"))
}

/// All structs of a module, atomic forms included.
fn all_structs(module: &Module) -> impl Iterator<Item = &'static Struct> {
    module.structs.iter().chain(module.atomics)
}

/// What Rust makes of a struct.
fn rust_facts(item: &Struct) -> Vec<Fact> {
    let fact = |what: String, value: usize| Fact { what, value: value as i128 };
    let mut facts = vec![
        fact(format!("size of {} ({})", item.name, item.c_name), item.size),
        fact(format!("alignment of {} ({})", item.name, item.c_name), item.align),
    ];
    for field in shared_fields(item) {
        facts.push(fact(format!("offset of {}.{}", item.name, field.name), field.offset));
        facts.push(fact(format!("size of {}.{}", item.name, field.name), field.size));
    }
    facts
}

/// The C statements that print the same facts in the same order.
fn c_statements(item: &Struct, program: &mut String) {
    let c = c_type(item);
    *program += &format!("    NUMBER(sizeof({c})); NUMBER(_Alignof({c}));\n");
    for field in shared_fields(item) {
        let name = c_field(field);
        *program += &format!(
            "    NUMBER(offsetof({c}, {name}));
"
        );
        *program += &format!(
            "    NUMBER(sizeof((({c} *)0)->{name}));
"
        );
    }
}

/// The whole C program.
fn c_program() -> String {
    let mut program = PREAMBLE.to_owned();
    for header in MODULES.iter().map(|module| module.header).collect::<BTreeSet<_>>() {
        program += &format!("#include <xen/{header}>\n");
    }
    program.push_str(RING);
    program.push_str("#define NUMBER(x) printf(\"%s%llu\\n\", (x) < 0 ? \"-\" : \"\", \\\n");
    program.push_str("    (x) < 0 ? -(unsigned long long)(x) : (unsigned long long)(x))\nint main(void) {\n");
    for module in MODULES {
        all_structs(module).for_each(|item| c_statements(item, &mut program));
        for constant in module.constants {
            program += &format!("    NUMBER({});\n", constant.c_name);
        }
    }
    program.push_str("    return 0;\n}\n");
    program
}

/// The facts of this crate, in the order in which the program prints C's.
fn all_rust_facts() -> Vec<Fact> {
    let constant = |constant: &Constant| Fact {
        what: format!("value of {} ({})", constant.name, constant.c_name),
        value: constant.value,
    };
    MODULES
        .iter()
        .flat_map(|module| {
            all_structs(module).flat_map(rust_facts).chain(module.constants.iter().map(constant)).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a constant is the same although C has it in a signed type: `1 << 31` is negative there.
fn same(rust: i128, c: i128) -> bool {
    rust == c || (c < 0 && rust == c + (1 << 32)) || (c < 0 && rust == c + (1 << 64))
}

/// Compiles and runs the program.
fn run(program: &str) -> Vec<i128> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (folder.join("layout.c"), folder.join("layout"));
    fs::write(&source, program).expect("the target folder can be written");
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-w", "-fno-diagnostics-show-caret", "-ftrack-macro-expansion=0", "-o"])
        .args([&binary, &source])
        .output()
        .expect("a C compiler is missing: apt-get install gcc libc6-dev");
    let errors = String::from_utf8_lossy(&compiled.stderr);
    let errors: BTreeSet<&str> = errors.lines().filter(|line| line.contains("error: ")).collect();
    assert!(compiled.status.success(), "C does not know all names: {errors:#?}");
    let output = Command::new(&binary).output().expect("what was compiled can be run");
    let text = String::from_utf8(output.stdout).expect("the program prints numbers");
    text.lines().map(|line| line.parse().expect("the program prints numbers")).collect()
}

#[test]
fn every_struct_and_constant_is_as_in_the_c_headers() {
    let header = Path::new(INCLUDE).join("xen.h");
    assert!(header.exists(), "Xen's C headers are missing: apt-get install libxen-dev");
    let rust = all_rust_facts();
    let c = run(&c_program());
    assert_eq!(rust.len(), c.len(), "the program prints one number for each fact");
    let wrong: Vec<String> = rust
        .iter()
        .zip(&c)
        .filter(|(fact, c)| !same(fact.value, **c))
        .map(|(fact, c)| format!("{}: {} here, {c} in C", fact.what, fact.value))
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), rust.len(), wrong.join("\n"));
}

/// The Rust files of the crate, but for the one that defines the macros.
fn sources() -> Vec<(PathBuf, String)> {
    fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("the source is there") {
            let path = entry.expect("the source can be read").path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("layout.rs") {
                let text = fs::read_to_string(&path).expect("the source can be read");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// The identifier after `start`, where the line begins with it.
fn name_after<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(start)?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The names of structs whose layout is C's: declared in the macro (indented, C name in brackets) or by hand.
fn declared_structs(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut by_hand = false;
    for line in text.lines() {
        if line == "#[repr(C)]" || line.starts_with("#[repr(C,") {
            by_hand = true;
        }
        let in_macro = line.contains(" [\"").then(|| name_after(line, "    pub struct ")).flatten();
        let alone = name_after(line, "pub struct ").or_else(|| name_after(line, "pub union "));
        match (in_macro, alone) {
            (Some(name), _) => names.push(name),
            (None, Some(name)) if std::mem::take(&mut by_hand) => names.push(name),
            _ => {}
        }
    }
    names
}

/// The names of constants declared in the macro.
fn declared_constants(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines() {
        match line {
            "constants! {" => inside = true,
            "}" => inside = false,
            _ => names.extend(name_after(line, "    pub const ").filter(|_| inside)),
        }
    }
    names
}

#[test]
fn every_struct_with_cs_layout_is_in_a_table() {
    let known: BTreeSet<&str> = MODULES.iter().flat_map(all_structs).map(|item| item.name).collect();
    for (path, text) in sources() {
        for name in declared_structs(&text) {
            assert!(known.contains(name), "{name} in {} is in no table of layout::MODULES", path.display());
        }
    }
}

#[test]
fn every_constant_of_a_header_is_in_a_table() {
    let known: BTreeSet<&str> = MODULES.iter().flat_map(|module| module.constants).map(|item| item.name).collect();
    for (path, text) in sources() {
        for name in declared_constants(&text) {
            assert!(known.contains(name), "{name} in {} is in no table of layout::MODULES", path.display());
        }
    }
}

#[test]
fn a_constant_is_called_as_in_c_but_for_case_and_underscores() {
    for constant in MODULES.iter().flat_map(|module| module.constants) {
        let bare = |name: &str| name.replace('_', "").to_uppercase();
        assert_eq!(bare(constant.name), bare(constant.c_name));
    }
}

#[test]
fn fields_fill_a_struct_without_holes() {
    for item in MODULES.iter().flat_map(|module| module.structs) {
        let mut end = 0;
        for field in item.fields {
            assert_eq!(field.offset, end, "a hole before {}.{}", item.name, field.name);
            end = field.offset + field.size;
        }
        assert_eq!(end, item.size, "a hole at the end of {}", item.name);
    }
}
