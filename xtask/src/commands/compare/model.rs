//! A model: what the counted crossings would cost in cycles on CPUs that somebody has measured.
//!
//! An emulator counts instructions; on a CPU a crossing costs far more than an instruction. The model multiplies the
//! crossings that were counted by what was published for a CPU. It knows nothing of the instructions in between, of caches or
//! of TLBs, and where nobody has published a figure it has none. The sources are in docs/comparing.md.

use serde::Serialize;

use super::figures::{Figures, Measured};

/// What crossings cost on a CPU, in cycles.
#[derive(Serialize, Debug)]
pub(super) struct Cpu {
    pub(super) name: &'static str,
    /// From an instruction that faults, or is interrupted, to the handler.
    pub(super) exception: Option<f64>,
    pub(super) iret: Option<f64>,
    /// Out of a guest in hardware-assisted mode and back in.
    pub(super) world_switch: Option<f64>,
    pub(super) source: &'static str,
}

/// The CPUs.
pub(super) static CPUS: [Cpu; 5] = [
    Cpu {
        name: "Haswell",
        exception: Some(715.0),
        iret: Some(330.0),
        world_switch: None,
        source: "L. Torvalds, Google+, 30 April 2014",
    },
    Cpu {
        name: "Core Duo",
        exception: Some(700.0),
        iret: Some(240.0),
        world_switch: None,
        source: "L. Torvalds, Google+, 30 April 2014",
    },
    Cpu {
        name: "Sandy Bridge",
        exception: None,
        iret: None,
        world_switch: Some(784.0),
        source: "Agesen et al., USENIX ATC 2012",
    },
    Cpu {
        name: "Skylake-X",
        exception: None,
        iret: None,
        world_switch: Some(1550.0),
        source: "vmcall and back, measured by several; see docs/comparing.md",
    },
    Cpu {
        name: "EPYC",
        exception: None,
        iret: None,
        world_switch: Some(1350.0),
        source: "VMRUN to #VMEXIT, M. Roth, linux-kernel, December 2020",
    },
];

/// What the crossings of one operation take on a CPU.
#[derive(Clone, Serialize, PartialEq, Debug)]
pub(super) struct Modelled {
    pub(super) cpu: &'static str,
    pub(super) cycles: f64,
}

/// Ways in that are taken like a fault.
const EXCEPTIONS: [&str; 15] = [
    "divide_error",
    "debug",
    "nmi",
    "breakpoint",
    "invalid_opcode",
    "device_not_available",
    "double_fault",
    "general_protection",
    "page_fault",
    "floating_point",
    "alignment_check",
    "machine_check",
    "exception",
    "interrupt",
    "service: interrupt",
];

/// The model for all CPUs that have a figure for what was counted.
pub(super) fn cycles(measured: &Measured) -> Vec<Modelled> {
    let switches = measured.privileged.get("vmrun").copied().unwrap_or(0.0);
    let exceptions = exceptions(&measured.exits) + exceptions(&measured.traps);
    let cost = |cpu: &Cpu| {
        // In hardware-assisted mode a guest's own exceptions cost too, but what ends in the hypervisor is a switch.
        if switches > 0.0 {
            Some(switches * cpu.world_switch?)
        } else {
            Some(exceptions * cpu.exception? + measured.irets * cpu.iret?)
        }
    };
    CPUS.iter().filter_map(|cpu| Some(Modelled { cpu: cpu.name, cycles: cost(cpu)? })).collect()
}

fn exceptions(figures: &Figures) -> f64 {
    figures.iter().filter(|(kind, _)| EXCEPTIONS.contains(&kind.as_str())).map(|(_, count)| count).sum::<f64>() + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figures: &[(&str, f64)]) -> Figures {
        figures.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect()
    }

    #[test]
    fn exceptions_and_returns_are_multiplied_by_what_a_cpu_takes() {
        let exits = figures(&[("page_fault", 2.0), ("iret", 1.0), ("syscall", 5.0)]);
        let measured = Measured { exits, irets: 3.0, ..Measured::default() };
        let haswell = cycles(&measured).into_iter().find(|modelled| modelled.cpu == "Haswell").expect("a model");
        assert_eq!(haswell.cycles, 2.0 * 715.0 + 3.0 * 330.0);
    }

    #[test]
    fn a_hardware_assisted_guest_is_modelled_by_its_switches() {
        let measured = Measured { privileged: figures(&[("vmrun", 4.0)]), ..Measured::default() };
        let named: Vec<_> = cycles(&measured).into_iter().map(|modelled| (modelled.cpu, modelled.cycles)).collect();
        assert_eq!(named, [("Sandy Bridge", 3136.0), ("Skylake-X", 6200.0), ("EPYC", 5400.0)]);
    }
}
