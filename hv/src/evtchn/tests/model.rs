//! Random operations against a model of all ports.

use alloc::vec::Vec;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::fake::FakeMachine;

/// What the table of one domain should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    Free,
    Offered(u16),
    Bound(usize, u32),
    Ipi,
    Timer,
}

#[derive(Clone, Debug)]
enum Step {
    Offer { of: usize, to: usize },
    Bind { by: usize, to: usize, port: u32 },
    Ipi { by: usize },
    Timer { by: usize },
    Close { by: usize, port: u32 },
    Send { by: usize, port: u32 },
    Consume { by: usize },
    Reset { by: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..3_usize;
    let port = || 0..12_u32;
    prop_oneof![
        3 => (who(), who()).prop_map(|(of, to)| Step::Offer { of, to }),
        4 => (who(), who(), port()).prop_map(|(by, to, port)| Step::Bind { by, to, port }),
        1 => who().prop_map(|by| Step::Ipi { by }),
        1 => who().prop_map(|by| Step::Timer { by }),
        3 => (who(), port()).prop_map(|(by, port)| Step::Close { by, port }),
        6 => (who(), port()).prop_map(|(by, port)| Step::Send { by, port }),
        2 => who().prop_map(|by| Step::Consume { by }),
        1 => who().prop_map(|by| Step::Reset { by }),
    ]
}

#[derive(Default)]
struct World {
    ports: [Vec<Model>; 3],
    pending: [BTreeSet<u32>; 3],
}

impl World {
    fn new() -> Self {
        Self { ports: [(); 3].map(|()| alloc::vec![Model::Free; 64]), ..Self::default() }
    }

    fn allocate(&mut self, domain: usize, what: Model) -> u32 {
        let port = (1..64).find(|port| self.ports[domain][*port] == Model::Free).unwrap();
        self.ports[domain][port] = what;
        port as u32
    }

    fn close(&mut self, domain: usize, port: u32) -> bool {
        let was = core::mem::replace(&mut self.ports[domain][port as usize], Model::Free);
        self.pending[domain].remove(&port);
        if let Model::Bound(far, far_port) = was {
            self.ports[far][far_port as usize] = Model::Offered(domain as u16);
        }
        was != Model::Free
    }
}

fn play(bed: &Bed, domains: &[Arc<Domain>; 3], world: &mut World, step: &Step) {
    match *step {
        Step::Offer { of, to } => {
            let expected = world.allocate(of, Model::Offered(to as u16));
            assert_eq!(alloc_unbound(&bed.hv, &domains[of], DomId(to as u16)).unwrap(), expected);
        }
        Step::Bind { by, to, port } => {
            let outcome = bind_interdomain(&bed.hv, &domains[by], &domains[to], port);
            if world.ports[to][port as usize] == Model::Offered(by as u16) {
                let expected = world.allocate(by, Model::Bound(to, port));
                world.ports[to][port as usize] = Model::Bound(by, expected);
                world.pending[by].insert(expected);
                assert_eq!(outcome.unwrap(), expected);
            } else {
                refused(outcome, Errno::Inval, rule::NOT_OFFERED);
            }
        }
        Step::Ipi { by } => assert_eq!(bind_ipi(&bed.hv, &domains[by], 0).unwrap(), world.allocate(by, Model::Ipi)),
        Step::Timer { by } => {
            let outcome = bind_virq(&bed.hv, &domains[by], VIRQ_TIMER, 0);
            if world.ports[by].contains(&Model::Timer) {
                refused(outcome, Errno::Exist, rule::VIRQ_BOUND);
            } else {
                assert_eq!(outcome.unwrap(), world.allocate(by, Model::Timer));
            }
        }
        Step::Close { by, port } => {
            let was_open = world.close(by, port);
            assert_eq!(close(&bed.hv, &domains[by], port).is_ok(), was_open);
        }
        Step::Send { by, port } => {
            let outcome = send(&bed.hv, &domains[by], port);
            match world.ports[by][port as usize] {
                Model::Bound(far, far_port) => {
                    world.pending[far].insert(far_port);
                    outcome.unwrap();
                }
                Model::Ipi => {
                    world.pending[by].insert(port);
                    outcome.unwrap();
                }
                Model::Offered(_) => outcome.unwrap(),
                Model::Free | Model::Timer => refused(outcome, Errno::Inval, rule::NOT_SENDABLE),
            }
        }
        Step::Consume { by } => {
            let got: BTreeSet<u32> = consume(bed, &domains[by]).into_iter().collect();
            assert_eq!(got, core::mem::take(&mut world.pending[by]));
        }
        Step::Reset { by } => {
            (0..64).for_each(|port| {
                world.close(by, port);
            });
            close_all(&bed.hv, &domains[by]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn ports_behave_as_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let bed = Bed::on(FakeMachine::new(64));
        let domains = [0, 1, 2].map(|id| bed.domain(id, 1));
        let mut world = World::new();
        for step in &steps {
            play(&bed, &domains, &mut world, step);
        }
    }
}
