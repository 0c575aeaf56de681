//! `docs/abi.md` is made from the tables that the code is made from. Run with `UPDATE_DOCS=1` to write it anew.

use std::fmt::Write;

use hv::{hypercall, rules};

/// Every hypercall number of Xen 4.17 that a 64-bit PV guest can issue (Xen: public/xen.h, `__HYPERVISOR_*`).
const NUMBERS: &[(u64, &str)] = &[
    (0, "set_trap_table"),
    (1, "mmu_update"),
    (2, "set_gdt"),
    (3, "stack_switch"),
    (4, "set_callbacks"),
    (5, "fpu_taskswitch"),
    (6, "sched_op_compat"),
    (7, "platform_op"),
    (8, "set_debugreg"),
    (9, "get_debugreg"),
    (10, "update_descriptor"),
    (12, "memory_op"),
    (13, "multicall"),
    (14, "update_va_mapping"),
    (15, "set_timer_op"),
    (16, "event_channel_op_compat"),
    (17, "xen_version"),
    (18, "console_io"),
    (19, "physdev_op_compat"),
    (20, "grant_table_op"),
    (21, "vm_assist"),
    (22, "update_va_mapping_otherdomain"),
    (23, "iret"),
    (24, "vcpu_op"),
    (25, "set_segment_base"),
    (26, "mmuext_op"),
    (27, "xsm_op"),
    (28, "nmi_op"),
    (29, "sched_op"),
    (30, "callback_op"),
    (31, "xenoprof_op"),
    (32, "event_channel_op"),
    (33, "physdev_op"),
    (34, "hvm_op"),
    (35, "sysctl"),
    (36, "domctl"),
    (37, "kexec_op"),
    (38, "tmem_op"),
    (39, "argo_op"),
    (40, "xenpmu_op"),
    (41, "dm_op"),
    (42, "hypfs_op"),
    (48, "mca"),
    (49, "paging_domctl_cont"),
];

fn document() -> String {
    let mut text = String::from(
        "# The ABI, as hv implements it\n\nMade from the code's own tables by `hv/tests/abi_doc.rs`; change those, not this.\n\n\
         ## Hypercalls of Xen 4.17\n\nA missing one answers `-ENOSYS` and is logged.\n\n| number | name | here |\n|---|---|---|\n",
    );
    for (number, name) in NUMBERS {
        let here = hypercall::IMPLEMENTED.iter().any(|(implemented, _)| implemented == number);
        let _ = writeln!(text, "| {number} | `{name}` | {} |", if here { "implemented" } else { "missing" });
    }
    text.push_str("\n## Rules\n\nEvery check that can refuse something, by the id that the log shows.\n");
    for table in rules::tables() {
        let Some(first) = table.first() else { continue };
        let room = first.0.id.split('-').next().unwrap_or_default();
        let _ = writeln!(text, "\n### {room}\n\n| rule | what must hold | source |\n|---|---|---|");
        for rule in table {
            let _ = writeln!(text, "| {} | {} | {} |", rule.0.id, rule.0.sentence, rule.0.source);
        }
    }
    text
}

#[test]
fn the_abi_document_says_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/abi.md");
    let document = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).expect("docs/abi.md can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == document, "docs/abi.md is stale; run: UPDATE_DOCS=1 cargo test -p hv --test abi_doc");
}

#[test]
fn every_implemented_hypercall_has_a_number_of_xens() {
    for (number, name) in hypercall::IMPLEMENTED {
        assert!(NUMBERS.contains(&(*number, *name)), "{name} is not number {number} in Xen");
    }
}
