//! `platform_op`: what dom0's kernel asks of the machine.
//!
//! Source: Xen's `public/platform.h`.

use pv_abi::errno::Errno;
use pv_abi::platform::{self as abi, PlatformOp, XENPF_INTERFACE_VERSION};

use super::crash::print;
use crate::call::Call;
use crate::hardware::{CpuId, CpuSet, Machine, PowerAction};
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};
use crate::{sched, time};

/// The sleep state in which the machine is off.
const OFF: u32 = 5;

/// `platform_op(operation*)`.
///
/// # Errors
/// `EPERM` for all but dom0, `EACCES` for another interface version, `EFAULT` for a bad pointer, `ENOSYS` for an unknown
/// command, and those of the operations.
pub fn platform_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let mut frame: PlatformOp = call.read(args[0])?;
    if frame.interface_version != XENPF_INTERFACE_VERSION {
        let evidence = Evidence::Value(frame.interface_version.into());
        return Err(Refusal::errno(Errno::Access, rule::PLATFORM_VERSION).with(evidence));
    }
    call.privileged()?;
    match frame.cmd {
        abi::XENPF_SETTIME64 => {
            let wanted: abi::XenpfSettime64 = frame.payload();
            set_time(call, wanted.secs, wanted.nsecs, wanted.mbz, wanted.system_time)?;
        }
        abi::XENPF_SETTIME32 => {
            let wanted: abi::XenpfSettime32 = frame.payload();
            set_time(call, wanted.secs.into(), wanted.nsecs, 0, wanted.system_time)?;
        }
        abi::XENPF_FIRMWARE_INFO => firmware(&mut frame)?,
        abi::XENPF_ENTER_ACPI_SLEEP => sleep(call, &frame.payload())?,
        abi::XENPF_GETIDLETIME => idle(call, &mut frame)?,
        abi::XENPF_GET_CPUINFO => cpu(call, &mut frame),
        abi::XENPF_GET_CPU_VERSION => cpu_version(call, &mut frame),
        command => {
            let evidence = Evidence::Value(command.into());
            return Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(evidence));
        }
    }
    call.write(args[0], &frame)?;
    Ok(0)
}

fn set_time<M: Machine>(call: &Call<'_, M>, secs: u64, nsecs: u32, pad: u32, at: u64) -> Result<(), Refusal> {
    if pad != 0 {
        return Err(Refusal::errno(Errno::Inval, rule::WALL_CLOCK).with(Evidence::Value(pad.into())));
    }
    time::set_wallclock(call.hv, secs, nsecs, at);
    Ok(())
}

/// `XENPF_firmware_info`: keys held at start; of disks and displays the firmware left nothing, and there is no EFI.
fn firmware(frame: &mut PlatformOp) -> Result<(), Refusal> {
    let mut request: abi::XenpfFirmwareInfo = frame.payload();
    let errno = match request.type_ {
        abi::XEN_FW_KBD_SHIFT_FLAGS => {
            request.u[0] = 0;
            frame.set_payload(&request);
            return Ok(());
        }
        abi::XEN_FW_DISK_INFO | abi::XEN_FW_DISK_MBR_SIGNATURE | abi::XEN_FW_VBEDDC_INFO => Errno::Srch,
        abi::XEN_FW_EFI_INFO => Errno::NoSys,
        _ => Errno::Inval,
    };
    Err(Refusal::errno(errno, rule::NO_FIRMWARE_INFO).with(Evidence::Value(request.type_.into())))
}

/// `XENPF_enter_acpi_sleep`: the machine is switched off.
fn sleep<M: Machine>(call: &Call<'_, M>, request: &abi::XenpfEnterAcpiSleep) -> Result<(), Refusal> {
    if request.sleep_state != OFF {
        let evidence = Evidence::Limit { asked: request.sleep_state.into(), limit: OFF.into() };
        return Err(Refusal::errno(Errno::OpNotSupp, rule::SLEEP_STATE).with(evidence));
    }
    print(call.hv, b"(hv) dom0 switches the machine off\n");
    call.hv.machine.power(PowerAction::Off)
}

/// `XENPF_getidletime`: for each CPU of the bitmap how long it was idle; CPUs that there are not are taken out of it.
fn idle<M: Machine>(call: &Call<'_, M>, frame: &mut PlatformOp) -> Result<(), Refusal> {
    let mut request: abi::XenpfGetidletime = frame.payload();
    let asked = request.cpumap_nr_cpus.min(64);
    let mut bitmap = [0; 8];
    let bytes = asked.div_ceil(8) as usize;
    call.read_bytes(request.cpumap_bitmap, &mut bitmap[..bytes])?;
    let CpuSet(there) = CpuSet::first(call.hv.machine.cpu_count());
    let wanted = u64::from_le_bytes(bitmap) & there;
    for cpu in (0..asked).filter(|cpu| wanted >> cpu & 1 != 0) {
        call.write_element(request.idletime, cpu.into(), &sched::idle_time(call.hv, CpuId(cpu)))?;
    }
    call.write(request.cpumap_bitmap, &wanted.to_le_bytes()[..bytes])?;
    request.now = call.hv.machine.now();
    frame.set_payload(&request);
    Ok(())
}

fn cpu<M: Machine>(call: &Call<'_, M>, frame: &mut PlatformOp) {
    let mut request: abi::XenpfPcpuinfo = frame.payload();
    let cpus = call.hv.machine.cpu_count();
    request.max_present = cpus.saturating_sub(1);
    request.flags = abi::XEN_PCPU_FLAGS_INVALID;
    if request.xen_cpuid < cpus {
        request.flags = abi::XEN_PCPU_FLAGS_ONLINE;
        [request.apic_id, request.acpi_id] = call.hv.machine.firmware_ids(CpuId(request.xen_cpuid));
    }
    frame.set_payload(&request);
}

/// `XENPF_get_cpu_version`: vendor, family, model and stepping as CPUID has them (AMD APM 3, function 1).
fn cpu_version<M: Machine>(call: &Call<'_, M>, frame: &mut PlatformOp) {
    let abi::XenpfPcpuVersion { xen_cpuid, .. } = frame.payload();
    let max_present = call.hv.machine.cpu_count().saturating_sub(1);
    let mut request = abi::XenpfPcpuVersion { xen_cpuid, max_present, ..Default::default() };
    if request.xen_cpuid <= request.max_present {
        let vendor = call.hv.machine.cpuid(0, 0);
        for (place, word) in
            request.vendor_id.as_chunks_mut::<4>().0.iter_mut().zip([vendor.ebx, vendor.edx, vendor.ecx])
        {
            *place = word.to_le_bytes();
        }
        let version = call.hv.machine.cpuid(1, 0).eax;
        let family = version >> 8 & 0xf;
        request.family = if family == 0xf { family + (version >> 20 & 0xff) } else { family };
        let model = version >> 4 & 0xf;
        request.model = if family == 0xf || family == 6 { model | version >> 12 & 0xf0 } else { model };
        request.stepping = version & 0xf;
    }
    frame.set_payload(&request);
}
