//! Walks through every ordering of both sides: each side looks at the other's state and acts on what it saw, in any
//! order, and at any moment either side may be replaced by a new instance or told to leave.

use alloc::collections::{BTreeSet, VecDeque};

use super::{BackStep, FrontStep, Intent, Phase, XenbusState as S, back_step, front_step};

/// The ring the front offers, as the pair of them sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ring {
    None,
    Fresh,
    UsedByThisBack,
    UsedByPredecessor,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Half {
    phase: Phase,
    intent: Intent,
    /// What stands in the store.
    key: S,
    /// What this half last saw of the other.
    view: S,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct World {
    /// A network front says `Connected` as soon as it offers.
    eager: bool,
    front: Half,
    back: Half,
    ring: Ring,
}

const FRESH: Half = Half { phase: Phase::Start, intent: Intent::Run, key: S::Initialising, view: S::Initialising };

fn start(eager: bool) -> World {
    World { eager, front: FRESH, back: FRESH, ring: Ring::None }
}

impl Half {
    fn enter(&mut self, phase: Phase, key: S) {
        self.phase = phase;
        self.key = key;
    }

    /// A new instance: it looks before it acts.
    fn replaced(self, peer: S, intent: Intent) -> Self {
        Self { phase: Phase::Start, intent, key: self.key, view: peer }
    }
}

impl World {
    fn front_enters(mut self, phase: Phase) -> Self {
        if phase == Phase::Start {
            self.front.intent = Intent::Run;
        }
        self.front.enter(phase, phase.front_state(self.eager));
        self
    }

    fn back_enters(mut self, phase: Phase) -> Self {
        match (phase, self.back.intent) {
            (Phase::Offered | Phase::Established, Intent::Restart | Intent::Resume) => self.back.intent = Intent::Run,
            (Phase::Closed, Intent::Resume) => self.back.intent = Intent::Restart,
            _ => {}
        }
        self.back.enter(phase, phase.back_state());
        self
    }

    fn front_looks(mut self) -> Self {
        self.front.view = self.back.key;
        self
    }

    fn back_looks(mut self) -> Self {
        self.back.view = self.front.key;
        self
    }

    fn front_acts(mut self) -> Self {
        match front_step(self.front.phase, self.front.intent, self.front.view) {
            FrontStep::Wait | FrontStep::Serve | FrontStep::Pause => self,
            FrontStep::Offer => {
                self.ring = Ring::Fresh;
                self.front_enters(Phase::Offered)
            }
            FrontStep::Connect => self.front_enters(Phase::Established),
            FrontStep::Finish | FrontStep::Disconnect => {
                self.ring = Ring::None;
                self.front_enters(Phase::Closed)
            }
            FrontStep::Evict => {
                self.front.intent = Intent::Restart;
                self
            }
            FrontStep::Enter(phase) => self.front_enters(phase),
        }
    }

    fn back_acts(mut self) -> Self {
        match back_step(self.back.phase, self.back.intent, self.back.view) {
            BackStep::Wait | BackStep::Serve => self,
            BackStep::Publish => self.back_enters(Phase::Offered),
            BackStep::Connect => {
                let takes_over = self.back.intent == Intent::Resume && self.ring != Ring::None;
                assert!(takes_over || self.ring != Ring::UsedByPredecessor, "joined a ring unawares: {self:?}");
                if self.ring == Ring::None {
                    // The keys are gone: the real driver fails to read them and closes.
                    return self.back_enters(Phase::Closed);
                }
                self.ring = Ring::UsedByThisBack;
                self.back_enters(Phase::Established)
            }
            BackStep::Disconnect => self.back_enters(Phase::Closed),
            BackStep::Enter(phase) => self.back_enters(phase),
        }
    }

    fn back_replaced(mut self) -> Self {
        let intent = match self.back.key {
            S::Unknown | S::Initialising => Intent::Run,
            S::InitWait | S::Connected => Intent::Resume,
            _ => Intent::Restart,
        };
        self.back = self.back.replaced(self.front.key, intent);
        if self.ring == Ring::UsedByThisBack {
            self.ring = Ring::UsedByPredecessor;
        }
        self
    }

    fn front_replaced(mut self) -> Self {
        let left_behind = !matches!(self.front.key, S::Unknown | S::Initialising);
        let intent = if left_behind { Intent::Restart } else { Intent::Run };
        self.front = self.front.replaced(self.back.key, intent);
        self.ring = Ring::None;
        self
    }

    fn works(&self) -> bool {
        self.front.phase == Phase::Established
            && self.back.phase == Phase::Established
            && self.ring == Ring::UsedByThisBack
    }

    fn settled(self) -> Self {
        let mut world = self;
        for _ in 0..40 {
            world = world.front_looks().front_acts().back_looks().back_acts();
        }
        world
    }
}

fn reachable(from: World, moves: &[fn(World) -> World]) -> BTreeSet<World> {
    let mut seen = BTreeSet::from([from]);
    let mut queue = VecDeque::from([from]);
    while let Some(world) = queue.pop_front() {
        for next in moves.iter().map(|step| step(world)) {
            if seen.insert(next) {
                queue.push_back(next);
            }
        }
    }
    seen
}

const ORDINARY: [fn(World) -> World; 4] = [World::front_looks, World::front_acts, World::back_looks, World::back_acts];

#[test]
fn every_ordering_of_a_first_start_ends_connected() {
    for eager in [false, true] {
        let worlds = reachable(start(eager), &ORDINARY);
        assert!(worlds.iter().any(World::works));
        for world in worlds {
            assert!(world.settled().works(), "stuck at {world:?}, then {:?}", world.settled());
        }
    }
}

#[test]
fn a_replaced_back_works_again_from_every_state_and_takes_over_only_what_it_knows_to_be_old() {
    let mut moves = ORDINARY.to_vec();
    moves.push(World::back_replaced);
    for eager in [false, true] {
        for world in reachable(start(eager), &moves) {
            assert!(world.settled().works(), "stuck at {world:?}, then {:?}", world.settled());
        }
    }
}

#[test]
fn a_front_that_serves_does_not_notice_that_its_back_was_replaced() {
    for eager in [false, true] {
        for world in reachable(start(eager), &ORDINARY).into_iter().filter(World::works) {
            let settled = world.back_replaced().back_looks().back_acts();
            assert!(settled.works() && settled.back.key == S::Connected, "{settled:?}");
        }
    }
}

#[test]
fn a_replaced_front_reconnects_from_every_state() {
    let mut moves = ORDINARY.to_vec();
    moves.push(World::front_replaced);
    for eager in [false, true] {
        for world in reachable(start(eager), &moves) {
            assert!(world.settled().works(), "stuck at {world:?}, then {:?}", world.settled());
        }
    }
}

#[test]
fn either_side_closes_both_from_every_state() {
    for eager in [false, true] {
        for mut world in reachable(start(eager), &ORDINARY) {
            world.front.intent = Intent::Leave;
            let settled = world.settled();
            assert_eq!(settled.front.phase, Phase::Closed, "{world:?}");
            assert_ne!(settled.back.phase, Phase::Established, "{world:?}");
        }
        for mut world in reachable(start(eager), &ORDINARY) {
            world.back.intent = Intent::Leave;
            let settled = world.settled();
            assert_eq!(settled.back.phase, Phase::Closed, "{world:?}");
            assert_ne!(settled.front.phase, Phase::Established, "{world:?}");
        }
    }
}

#[test]
fn every_pair_of_states_has_an_answer_and_no_front_serves_a_back_that_is_not_there() {
    for phase in [Phase::Start, Phase::Offered, Phase::Established, Phase::Leaving, Phase::Closed] {
        for intent in [Intent::Run, Intent::Restart, Intent::Resume, Intent::Leave] {
            for peer in S::ALL {
                let front = front_step(phase, intent, peer);
                let serves = matches!(front, FrontStep::Serve);
                assert!(!serves || matches!(peer, S::Connected | S::Reconfigured));
                let back = back_step(phase, intent, peer);
                let serves = matches!(back, BackStep::Serve);
                assert!(!serves || matches!(phase, Phase::Established | Phase::Leaving));
            }
        }
    }
}

#[test]
fn a_front_pauses_while_the_back_reconfigures_and_then_serves_again() {
    let step = |back| front_step(Phase::Established, Intent::Run, back);
    assert_eq!(step(S::Reconfiguring), FrontStep::Pause);
    assert_eq!(step(S::Reconfigured), FrontStep::Serve);
    assert_eq!(step(S::Connected), FrontStep::Serve);
}

#[test]
fn a_number_that_is_no_state_is_unknown() {
    assert_eq!(S::from_number(4), S::Connected);
    assert_eq!(S::from_number(9), S::Unknown);
    assert_eq!(S::from_number(u32::MAX), S::Unknown);
}
