//! `physdev_op`: decode, call, encode.

use pv_abi::errno::Errno;
use pv_abi::physdev::{self as abi};
use pv_abi::{DomId, MachineAddr};

use super::message::Message;
use super::{EoiMap, PIRQS};
use crate::call::Call;
use crate::control::pci::Function;
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::{LineMode, Machine};
use crate::paging::entry::is_guest_address;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rule, physdev as rule};

/// The I/O APIC that `PHYSDEVOP_apic_read` shows.
const IO_APIC: MachineAddr = MachineAddr(0xfec0_0000);

/// `physdev_op(command, argument*)`.
///
/// # Errors
/// `EFAULT` for a bad pointer, `EPERM` for what only dom0 may, `ENOSYS` for an unknown command, and those of the
/// operations.
pub fn physdev_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let (command, argument) = (args[0] as u32, args[1]);
    match command {
        abi::PHYSDEVOP_EOI => {
            let done: abi::PhysdevEoi = call.read(argument)?;
            super::end(call.hv, call.domain(), done.irq)?;
        }
        abi::PHYSDEVOP_SET_IOPL => set_iopl(call, &call.read(argument)?)?,
        abi::PHYSDEVOP_SET_IOBITMAP => set_io_bitmap(call, &call.read(argument)?)?,
        abi::PHYSDEVOP_IRQ_STATUS_QUERY => status(call, argument)?,
        abi::PHYSDEVOP_PIRQ_EOI_GMFN_V1 => register_eoi_map(call, &call.read(argument)?, true)?,
        abi::PHYSDEVOP_PIRQ_EOI_GMFN_V2 => register_eoi_map(call, &call.read(argument)?, false)?,
        abi::PHYSDEVOP_MAP_PIRQ => map(call, argument)?,
        abi::PHYSDEVOP_UNMAP_PIRQ => unmap(call, &call.read(argument)?)?,
        abi::PHYSDEVOP_GET_FREE_PIRQ => get_free(call, argument)?,
        _ => return of_dom0(call, command, argument),
    }
    Ok(0)
}

/// The operations that only dom0 may ask for.
fn of_dom0<M: Machine>(call: &mut Call<'_, M>, command: u32, argument: u64) -> Result<u64, Refusal> {
    let known = matches!(command, 8..=11 | 15 | 16 | 19..=21 | 24..=27 | 29..=31);
    if !known {
        return Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(Evidence::Value(command.into())));
    }
    call.privileged()?;
    match command {
        abi::PHYSDEVOP_APIC_READ => apic_read(call, argument)?,
        abi::PHYSDEVOP_APIC_WRITE => {
            let write: abi::PhysdevApic = call.read(argument)?;
            return Err(Refusal::errno(Errno::Perm, rule::APIC_REGISTER).with(Evidence::Value(write.reg.into())));
        }
        abi::PHYSDEVOP_ALLOC_IRQ_VECTOR => {
            let mut irq: abi::PhysdevIrq = call.read(argument)?;
            irq.vector = irq.irq;
            call.write(argument, &irq)?;
        }
        abi::PHYSDEVOP_SETUP_GSI => {
            let wanted: abi::PhysdevSetupGsi = call.read(argument)?;
            let gsi = line(call, wanted.gsi.cast_unsigned())?;
            let mode = LineMode { level: wanted.triggering != 0, low: wanted.polarity != 0 };
            super::set_up_line(call.hv, gsi, mode)?;
        }
        abi::PHYSDEVOP_RESTORE_MSI => {
            let device: abi::PhysdevRestoreMsi = call.read(argument)?;
            super::restore_messages(call.hv, Function { bus: device.bus, devfn: device.devfn });
        }
        abi::PHYSDEVOP_RESTORE_MSI_EXT => {
            let function = device(call, argument)?;
            super::restore_messages(call.hv, function);
        }
        abi::PHYSDEVOP_PREPARE_MSIX | abi::PHYSDEVOP_RELEASE_MSIX => prepare(call, argument)?,
        abi::PHYSDEVOP_PCI_DEVICE_REMOVE => {
            device(call, argument)?;
        }
        abi::PHYSDEVOP_MANAGE_PCI_ADD | abi::PHYSDEVOP_MANAGE_PCI_REMOVE => {
            let _: abi::PhysdevManagePci = call.read(argument)?;
        }
        abi::PHYSDEVOP_MANAGE_PCI_ADD_EXT => {
            let _: abi::PhysdevManagePciExt = call.read(argument)?;
        }
        abi::PHYSDEVOP_PCI_DEVICE_ADD => {
            let added: abi::PhysdevPciDeviceAdd = call.read(argument)?;
            first_segment(added.seg)?;
        }
        abi::PHYSDEVOP_PCI_MMCFG_RESERVED => {
            let _: abi::PhysdevPciMmcfgReserved = call.read(argument)?;
        }
        abi::PHYSDEVOP_DBGP_OP => {
            let _: abi::PhysdevDbgpOp = call.read(argument)?;
        }
        _ => {}
    }
    Ok(0)
}

fn set_iopl<M: Machine>(call: &mut Call<'_, M>, wanted: &abi::PhysdevSetIopl) -> Result<(), Refusal> {
    if wanted.iopl > 3 {
        let evidence = Evidence::Limit { asked: wanted.iopl.into(), limit: 3 };
        return Err(Refusal::errno(Errno::Inval, rule::IOPL_RANGE).with(evidence));
    }
    call.state().iopl = wanted.iopl as u8;
    Ok(())
}

fn set_io_bitmap<M: Machine>(call: &mut Call<'_, M>, wanted: &abi::PhysdevSetIobitmap) -> Result<(), Refusal> {
    if !is_guest_address(wanted.bitmap) {
        let evidence = Evidence::Value(wanted.bitmap);
        return Err(Refusal::errno(Errno::Inval, rule::IO_BITMAP_RANGE).with(evidence));
    }
    if wanted.nr_ports > 65536 {
        let evidence = Evidence::Limit { asked: wanted.nr_ports.into(), limit: 65536 };
        return Err(Refusal::errno(Errno::Inval, rule::IO_BITMAP_RANGE).with(evidence));
    }
    call.state().io_bitmap = (wanted.bitmap, wanted.nr_ports);
    Ok(())
}

/// `PHYSDEVOP_irq_status_query`: a domain that has no page to read it from must say EOI for every interrupt.
fn status<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<(), Refusal> {
    let mut query: abi::PhysdevIrqStatusQuery = call.read(argument)?;
    if query.irq >= PIRQS {
        return Err(super::no_such_pirq(query.irq));
    }
    let domain = call.domain().id;
    {
        let table = call.hv.interrupts.table.lock();
        let shared = table.find(domain, query.irq).and_then(|pirq| pirq.bound).is_some_and(|bound| bound.shares);
        let has_map = table.eoi_maps.iter().any(|map| map.domain == domain);
        query.flags =
            if has_map { 0 } else { abi::XENIRQSTAT_NEEDS_EOI } | if shared { abi::XENIRQSTAT_SHARED } else { 0 };
    }
    call.write(argument, &query)
}

fn register_eoi_map<M: Machine>(
    call: &Call<'_, M>,
    page: &abi::PhysdevPirqEoiGmfn,
    unmasks: bool,
) -> Result<(), Refusal> {
    let domain = call.domain().id;
    let frame = frames::get_typed(call.hv, ClaimedMfn(page.gmfn), domain, PageType::Writable)?;
    let mut table = call.hv.interrupts.table.lock();
    if table.eoi_maps.iter().any(|map| map.domain == domain) {
        drop(table);
        frames::put_typed(call.hv, frame);
        return Err(Refusal::errno(Errno::Busy, rule::EOI_MAP_ONCE));
    }
    table.eoi_maps.push(EoiMap { domain, frame, unmasks });
    let levels: alloc::vec::Vec<u32> = table
        .pirqs
        .iter()
        .filter(|pirq| pirq.domain == domain && pirq.bound.is_some())
        .filter(|pirq| matches!(pirq.source, super::Source::Line { level: true, .. }))
        .map(|pirq| pirq.number)
        .collect();
    for number in levels {
        table.publish(call.hv, domain, number, true);
    }
    Ok(())
}

fn map<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<(), Refusal> {
    let mut wanted: abi::PhysdevMapPirq = call.read(argument)?;
    let domain = call.target(DomId(wanted.domid))?;
    let number = u32::try_from(wanted.pirq).ok();
    let mapped = match wanted.type_ {
        abi::MAP_PIRQ_TYPE_GSI => {
            super::map_line(call.hv, call.domain(), &domain, wanted.index.cast_unsigned(), number)?
        }
        abi::MAP_PIRQ_TYPE_MSI | abi::MAP_PIRQ_TYPE_MSI_SEG | abi::MAP_PIRQ_TYPE_MULTI_MSI => {
            call.privileged()?;
            let message = message(call, &mut wanted)?;
            super::map_message(call.hv, &domain, message, number)?
        }
        other => {
            let evidence = Evidence::Value(u64::from(other.cast_unsigned()));
            return Err(Refusal::errno(Errno::Inval, rule::MAP_KIND).with(evidence));
        }
    };
    wanted.pirq = mapped.cast_signed();
    call.write(argument, &wanted)
}

/// The message that a request names: an entry of a table where it gives one, else the device's MSI.
fn message<M: Machine>(call: &Call<'_, M>, wanted: &mut abi::PhysdevMapPirq) -> Result<Message, Refusal> {
    if wanted.type_ != abi::MAP_PIRQ_TYPE_MSI {
        first_segment((wanted.bus >> 16) as u16)?;
    }
    let function = Function { bus: wanted.bus as u8, devfn: wanted.devfn as u8 };
    if wanted.type_ == abi::MAP_PIRQ_TYPE_MULTI_MSI {
        if wanted.entry_nr != 1 {
            wanted.entry_nr = 1;
            return Err(Refusal::errno(Errno::OpNotSupp, rule::ONE_MESSAGE));
        }
        return Message::single(call.hv, function);
    }
    if wanted.table_base == 0 {
        return Message::single(call.hv, function);
    }
    Message::entry(call.hv, function, wanted.entry_nr.cast_unsigned())
}

fn unmap<M: Machine>(call: &Call<'_, M>, wanted: &abi::PhysdevUnmapPirq) -> Result<(), Refusal> {
    let domain = call.target(DomId(wanted.domid))?;
    let number = wanted.pirq.cast_unsigned();
    let bound = call.hv.interrupts.table.lock().find(domain.id, number).is_some_and(|pirq| pirq.bound.is_some());
    if bound {
        log::debug!("{}: pirq {number} is unmapped while an event channel is bound to it", domain.id);
    }
    super::unmap(call.hv, &domain, number)
}

fn get_free<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<(), Refusal> {
    let mut wanted: abi::PhysdevGetFreePirq = call.read(argument)?;
    let domain = call.domain().id;
    {
        let mut table = call.hv.interrupts.table.lock();
        wanted.pirq = if wanted.type_ == abi::MAP_PIRQ_TYPE_GSI {
            (super::LEGACY_LINES..call.hv.machine.line_count())
                .find(|number| table.is_free(domain, *number))
                .ok_or_else(|| Refusal::errno(Errno::NoSpc, rule::NO_FREE_PIRQ))?
        } else {
            super::free_number(call.hv, &table, domain)?
        };
        table.reserved.push((domain, wanted.pirq));
    }
    call.write(argument, &wanted)
}

/// `PHYSDEVOP_apic_read`: id and version with the number of lines; routing entries read as masked.
fn apic_read<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<(), Refusal> {
    let mut wanted: abi::PhysdevApic = call.read(argument)?;
    let last = call.hv.machine.line_count().saturating_sub(1);
    wanted.value = match wanted.reg {
        _ if wanted.apic_physbase != IO_APIC.0 => {
            let evidence = Evidence::Value(wanted.apic_physbase);
            return Err(Refusal::errno(Errno::Inval, rule::APIC_REGISTER).with(evidence));
        }
        0 | 2 => 0,
        1 => last << 16 | 0x20,
        reg if reg % 2 == 0 => 1 << 16,
        _ => 0,
    };
    call.write(argument, &wanted)
}

fn line<M: Machine>(call: &Call<'_, M>, gsi: u32) -> Result<u32, Refusal> {
    if gsi < call.hv.machine.line_count() { Ok(gsi) } else { Err(super::no_such_line(call.hv, gsi)) }
}

fn device<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<Function, Refusal> {
    let wanted: abi::PhysdevPciDevice = call.read(argument)?;
    first_segment(wanted.seg)?;
    Ok(Function { bus: wanted.bus, devfn: wanted.devfn })
}

fn first_segment(segment: u16) -> Result<(), Refusal> {
    if segment == 0 {
        return Ok(());
    }
    Err(Refusal::errno(Errno::NoDev, rule::NO_MESSAGE_CAPABILITY).with(Evidence::Value(segment.into())))
}

/// `PHYSDEVOP_prepare_msix`, `PHYSDEVOP_release_msix`: the device must have a table.
fn prepare<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<(), Refusal> {
    let function = device(call, argument)?;
    Message::entry(call.hv, function, 0).map(|_| ())
}
