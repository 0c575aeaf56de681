//! Exchanging frames.

use super::*;

/// Exchanges `give` blocks of one order for `take` blocks of another.
fn exchange(
    bed: &Bed,
    guest: &mut Guest,
    give: (&[u64], u32),
    take: (&mut [u64], u32),
    bits: u32,
) -> (Result<u64, Refusal>, u64) {
    let (given, taken) = (guest.address(0) + LIST, guest.address(0) + 2 * LIST);
    guest.write(bed, given, give.0);
    guest.write(bed, taken, &*take.0);
    let mut asked = MemoryExchange::new_zeroed();
    for (list, place, len, order) in
        [(&mut asked.in_, given, give.0.len(), give.1), (&mut asked.out, taken, take.0.len(), take.1)]
    {
        (list.extent_start, list.nr_extents, list.extent_order) = (place, len as u64, order);
        list.domid = DOMID_SELF;
    }
    asked.out.mem_flags = xenmemf_address_bits(bits);
    let result = with(bed, guest, XENMEM_EXCHANGE, &mut asked);
    for (index, element) in take.0.iter_mut().enumerate() {
        *element = guest.read(bed, taken + index as u64 * 8);
    }
    (result, asked.nr_exchanged)
}

fn unmapped(bed: &Bed, guest: &Guest, count: usize) -> Vec<u64> {
    (0..count).map(|_| frames::allocate_domain_frame(&bed.hv, &guest.domain).unwrap().0).collect()
}

#[test]
fn single_frames_are_exchanged_for_a_block() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 8);
    let before = total(&guest);
    let mut take = [0x200, 0x300];
    bed.hv.machine.interrupt_after(Some(0));
    let (result, done) = exchange(&bed, &mut guest, (&give, 0), (&mut take, 2), 0);
    assert_eq!((result, done), (Ok(0), 8));
    assert_eq!(total(&guest), before);
    assert!(take.iter().all(|first| first % 4 == 0));
    assert_eq!(bed.hv.machine.m2p(Mfn(take[1] + 3)), 0x303);
    assert!(give.iter().all(|mfn| take.iter().any(|first| (*first..first + 4).contains(mfn))
        || frames::owner(&bed.hv, ClaimedMfn(*mfn)).is_none()));
    let mut back = [0; 8];
    let (result, _) = exchange(&bed, &mut guest, (&take, 2), (&mut back, 0), 0);
    assert_eq!(result, Ok(0));
    assert_eq!(total(&guest), before);
}

#[test]
fn a_block_is_below_the_address_asked_for() {
    let bed = Bed::new(256);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 1);
    let mut take = [0];
    let (result, _) = exchange(&bed, &mut guest, (&give, 0), (&mut take, 0), 18);
    assert_eq!(result, Ok(0));
    assert!(take[0] < 64, "below 2^18");
    refused(exchange(&bed, &mut guest, (&take, 0), (&mut [0], 0), 12).0, Errno::NoMem, rules::ADDRESS_BITS);
}

#[test]
fn a_frame_in_use_is_not_exchanged_and_nothing_is_lost() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let mut give = unmapped(&bed, &guest, 3);
    give.push(guest.frames[1].0);
    let before = (total(&guest), bed.hv.allocator.lock().free_count());
    let (result, done) = exchange(&bed, &mut guest, (&give, 0), (&mut [0], 2), 0);
    refused(result, Errno::Inval, rules::IN_USE);
    assert_eq!(done, 0);
    assert_eq!((total(&guest), bed.hv.allocator.lock().free_count()), before);
    assert!(give.iter().all(|mfn| frames::owner(&bed.hv, ClaimedMfn(*mfn)) == Some(guest.domain.id)));
}

#[test]
fn lists_of_an_exchange_must_match() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 3);
    refused(exchange(&bed, &mut guest, (&give, 0), (&mut [0], 1), 0).0, Errno::Inval, rules::EXCHANGE_LISTS);
    refused(exchange(&bed, &mut guest, (&give, 0), (&mut [0], 9), 0).0, Errno::Perm, rules::ORDER);
    refused(
        exchange(&bed, &mut guest, (&[1 << 45], 0), (&mut [0], 0), 0).0,
        Errno::Inval,
        crate::rules::paging::FRAME_OWNER,
    );
}

#[test]
fn without_memory_nothing_is_exchanged() {
    let bed = Bed::new(32);
    let mut guest = bed.guest(1, 3);
    while frames::allocate_domain_frame(&bed.hv, &guest.domain).is_some() {}
    let last = unmapped_last(&bed, &guest);
    refused(exchange(&bed, &mut guest, (&[last], 0), (&mut [0], 0), 0).0, Errno::NoMem, rules::NO_MEMORY);
}

fn unmapped_last(bed: &Bed, guest: &Guest) -> u64 {
    let count = |mfn: u64| bed.hv.frames.record(Mfn(mfn)).count_word();
    (1..32).find(|mfn| count(*mfn).count() == 1 && count(*mfn).owner() == guest.domain.id).unwrap()
}

/// One step of an exchange of 40 frames for others of order 0 and back in chunks of 8, from the argument at `place`.
fn step(bed: &Bed, guest: &mut Guest, place: u64) -> Result<u64, Refusal> {
    guest.in_call(bed, |call| memory_op(call, [XENMEM_EXCHANGE.into(), place, 0, 0, 0]))
}

/// An exchange of 64 single frames for a block, or back, in the guest's memory; gives its argument's address.
fn prepare_large(bed: &Bed, guest: &Guest, singles: &[u64], block: u64, back: bool) -> u64 {
    let (few, many) = (guest.address(0) + LIST, guest.address(0) + 2 * LIST);
    guest.write(bed, few, &block);
    guest.write(bed, many, singles);
    let mut asked = MemoryExchange::new_zeroed();
    let (one, all) = if back { (&mut asked.in_, &mut asked.out) } else { (&mut asked.out, &mut asked.in_) };
    (one.extent_start, one.nr_extents, one.extent_order, one.domid) = (few, 1, 6, DOMID_SELF);
    (all.extent_start, all.nr_extents, all.extent_order, all.domid) = (many, 64, 0, DOMID_SELF);
    guest.write(bed, guest.address(0), &asked);
    guest.address(0)
}

/// Frames that are free or the guest's.
fn known(bed: &Bed, guest: &Guest) -> u64 {
    bed.hv.allocator.lock().free_count() + total(guest)
}

#[test]
fn a_large_exchange_stops_often_and_loses_nothing() {
    let bed = Bed::new(512);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 64);
    let (mine, all) = (total(&guest), known(&bed, &guest));
    bed.hv.machine.interrupt_after(Some(0));
    for back in [false, true] {
        let block = if back { guest.read(&bed, guest.address(0) + LIST) } else { 0x200 };
        let place = prepare_large(&bed, &guest, &give, block, back);
        let mut steps = 0;
        while let Err(refusal) = step(&bed, &mut guest, place) {
            assert_eq!(refusal, Refusal::again());
            steps += 1;
        }
        assert!(steps >= 6, "only {steps} steps");
        assert!(guest.running.state.exchanging.is_none());
        assert_eq!((total(&guest), known(&bed, &guest)), (mine, all));
    }
}

#[test]
fn an_exchange_that_nobody_goes_on_with_is_undone() {
    let bed = Bed::new(512);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 64);
    let (mine, all) = (total(&guest), known(&bed, &guest));
    bed.hv.machine.interrupt_after(Some(0));
    let place = prepare_large(&bed, &guest, &give, 0x200, false);
    while total(&guest) == mine {
        assert_eq!(step(&bed, &mut guest, place), Err(Refusal::again()));
    }
    bed.hv.machine.interrupt_after(None);
    // Another exchange, which is refused, takes the place of the first.
    refused(exchange(&bed, &mut guest, (&give[..1], 0), (&mut [0], 9), 0).0, Errno::Perm, rules::ORDER);
    assert_eq!((total(&guest), known(&bed, &guest)), (mine, all));
    assert!(give.iter().all(|mfn| frames::owner(&bed.hv, ClaimedMfn(*mfn)) == Some(guest.domain.id)));
}

#[test]
fn a_domain_that_ends_within_an_exchange_leaves_nothing() {
    let bed = Bed::new(512);
    let mut guest = bed.guest(1, 3);
    let give = unmapped(&bed, &guest, 64);
    let all = known(&bed, &guest);
    bed.hv.machine.interrupt_after(Some(0));
    let place = prepare_large(&bed, &guest, &give, 0x200, false);
    for _ in 0..5 {
        assert_eq!(step(&bed, &mut guest, place), Err(Refusal::again()));
    }
    assert!(known(&bed, &guest) < all, "some frames are between the two");
    guest.domain.memory.lock().closed = true;
    abandon_exchange(&bed.hv, &mut guest.running.state);
    assert_eq!(known(&bed, &guest), all);
}
