//! Random operations on queues: against a model, and by a guest that writes anything anywhere.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::fifo::{MASKED, OFFSET, Side};
use super::*;
use crate::fake::FakeMachine;

const PORTS: usize = 10;

#[derive(Clone, Debug)]
enum Step {
    Open { vcpu: u32 },
    Close { port: u32 },
    Send { port: u32 },
    Mask { port: u32 },
    Unmask { port: u32 },
    Prefer { port: u32, priority: u32 },
    Consume { vcpu: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let port = || 1..PORTS as u32;
    prop_oneof![
        3 => (0..2_u32).prop_map(|vcpu| Step::Open { vcpu }),
        1 => port().prop_map(|port| Step::Close { port }),
        8 => port().prop_map(|port| Step::Send { port }),
        2 => port().prop_map(|port| Step::Mask { port }),
        2 => port().prop_map(|port| Step::Unmask { port }),
        2 => (port(), 5..9_u32).prop_map(|(port, priority)| Step::Prefer { port, priority }),
        2 => (0..2_usize).prop_map(|vcpu| Step::Consume { vcpu }),
    ]
}

#[derive(Clone, Copy, Default)]
struct Port {
    vcpu: Option<u32>,
    priority: u32,
    pending: bool,
    masked: bool,
    linked: bool,
}

#[derive(Default)]
struct World {
    ports: [Port; PORTS],
    queues: [[VecDeque<u32>; 16]; 2],
}

impl World {
    fn link(&mut self, port: u32) {
        let known = &mut self.ports[port as usize];
        if let Some(vcpu) = known.vcpu
            && known.pending
            && !known.masked
            && !known.linked
        {
            known.linked = true;
            self.queues[vcpu as usize][known.priority as usize].push_back(port);
        }
    }

    fn consume(&mut self, vcpu: usize) -> Vec<u32> {
        let mut events = Vec::new();
        for queue in &mut self.queues[vcpu] {
            for port in queue.drain(..) {
                let known = &mut self.ports[port as usize];
                known.linked = false;
                if known.pending && !known.masked {
                    known.pending = false;
                    events.push(port);
                }
            }
        }
        events
    }
}

fn play(bed: &Bed, domain: &Domain, side: &mut Side, world: &mut World, step: &Step) {
    match *step {
        Step::Open { vcpu } => {
            let is_free = |port: &usize| world.ports[*port].vcpu.is_none() && !world.ports[*port].linked;
            if let Some(port) = (1..PORTS).find(is_free) {
                assert_eq!(bind_ipi(&bed.hv, domain, vcpu).unwrap(), port as u32);
                world.ports[port] = Port { vcpu: Some(vcpu), priority: 7, ..world.ports[port] };
            }
        }
        Step::Close { port } => {
            let known = &mut world.ports[port as usize];
            assert_eq!(close(&bed.hv, domain, port).is_ok(), known.vcpu.is_some());
            if known.vcpu.take().is_some() {
                known.pending = false;
            }
        }
        Step::Send { port } => {
            let is_open = world.ports[port as usize].vcpu.is_some();
            assert_eq!(send(&bed.hv, domain, port).is_ok(), is_open);
            world.ports[port as usize].pending |= is_open;
            world.link(port);
        }
        Step::Mask { port } => {
            side.change(bed, port, |word| word | MASKED);
            world.ports[port as usize].masked = true;
        }
        Step::Unmask { port } => {
            unmask(&bed.hv, domain, port).unwrap();
            world.ports[port as usize].masked = false;
            world.link(port);
        }
        Step::Prefer { port, priority } => {
            set_priority(domain, &EvtchnSetPriority { port, priority }).unwrap();
            world.ports[port as usize].priority = priority;
        }
        Step::Consume { vcpu } => assert_eq!(side.consume(bed, vcpu), world.consume(vcpu)),
    }
}

/// What a hostile guest does.
#[derive(Clone, Debug)]
enum Attack {
    Step(Step),
    Scribble { index: usize, bits: u64 },
    ScribbleControl { index: usize, bits: u64 },
    Expand,
    Reset,
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        6 => step().prop_map(Attack::Step),
        6 => (0..PORTS, any::<u64>()).prop_map(|(index, bits)| Attack::Scribble { index, bits }),
        2 => (0..12_usize, any::<u64>()).prop_map(|(index, bits)| Attack::ScribbleControl { index, bits }),
        1 => Just(Attack::Expand),
        1 => Just(Attack::Reset),
    ]
}

fn be_attacked(bed: &Bed, domain: &Domain, side: &mut Side, attack: &Attack) {
    match *attack {
        Attack::Step(Step::Open { vcpu }) => drop(bind_ipi(&bed.hv, domain, vcpu)),
        Attack::Step(Step::Close { port }) => drop(close(&bed.hv, domain, port)),
        Attack::Step(Step::Send { port }) => drop(send(&bed.hv, domain, port)),
        Attack::Step(Step::Unmask { port }) => drop(unmask(&bed.hv, domain, port)),
        Attack::Step(Step::Prefer { port, priority }) => {
            let _ = set_priority(domain, &EvtchnSetPriority { port, priority });
        }
        Attack::Step(Step::Mask { .. } | Step::Consume { .. }) => {}
        Attack::Scribble { index, bits } => bed.hv.machine.write_word(side.array[0], index, bits),
        Attack::ScribbleControl { index, bits } => bed.hv.machine.write_word(side.controls[0], index, bits),
        Attack::Expand => {
            let _ = expand_array(&bed.hv, domain, side.array[0].0);
        }
        Attack::Reset => {
            while !relinquish(&bed.hv, domain) {}
            for (vcpu, mfn) in side.controls.iter().enumerate() {
                let mut again = EvtchnInitControl {
                    control_gfn: mfn.0,
                    offset: OFFSET,
                    vcpu: vcpu as u32,
                    ..EvtchnInitControl::default()
                };
                init_control(&bed.hv, domain, &mut again).unwrap();
            }
            expand_array(&bed.hv, domain, side.array[0].0).unwrap();
        }
    }
}

fn scene() -> (Bed, Arc<Domain>, Side) {
    let bed = Bed::on(FakeMachine::new(64));
    let domain = bed.domain(1, 2);
    let mut side = Side::new(&bed, &domain);
    side.expand(&bed, &domain);
    (bed, domain, side)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn queues_behave_as_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let (bed, domain, mut side) = scene();
        let mut world = World::default();
        for step in &steps {
            play(&bed, &domain, &mut side, &mut world, step);
        }
    }

    #[test]
    fn a_guest_that_writes_anything_reaches_only_its_own_pages(attacks in prop::collection::vec(attack(), 1..60)) {
        let (bed, domain, mut side) = scene();
        for attack in &attacks {
            be_attacked(&bed, &domain, &mut side, attack);
        }
        while !relinquish(&bed.hv, &domain) {}
        for mfn in side.array.iter().chain(&side.controls) {
            let record = bed.hv.frames.record(*mfn);
            prop_assert_eq!((record.count_word().count(), record.type_word().count()), (1, 0));
        }
        prop_assert!(is_pending(&bed.hv, &domain, 1).is_ok(), "two levels again");
    }
}
