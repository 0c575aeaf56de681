//! `xen_version`: what this hypervisor is and what it offers.
//!
//! The version is that of the ABI, 4.17: kernels and toolstacks decide by it what they may use. Source: Xen's
//! `public/version.h` and `public/features.h`.

use core::sync::atomic::Ordering;

use pv_abi::arch::HYPERVISOR_VIRT_START;
use pv_abi::errno::Errno;
use pv_abi::features;
use pv_abi::version::{
    self, BuildId, CompileInfo, FeatureInfo, PlatformParameters, XEN_CAPABILITIES_INFO_LEN, XEN_CHANGESET_INFO_LEN,
    XEN_COMMANDLINE_LEN, XEN_EXTRAVERSION_LEN,
};
use pv_abi::xen::VMASST_TYPE_PAE_EXTENDED_CR3;

use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};

/// Major and minor version of the ABI.
pub const VERSION: u64 = 4 << 16 | 17;
/// What follows them in the version's text.
const EXTRAVERSION: &str = ".0-xenolith";
/// The kinds of guests that can be built.
const CAPABILITIES: &str = "xen-3.0-x86_64 ";
/// The same with hardware assistance.
const CAPABILITIES_HVM: &str = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";
/// What a caller sees that may not see the thing itself.
const DENIED: &str = "<denied>";

/// `xen_version(command, argument*)`.
///
/// # Errors
/// `ENOSYS` for an unknown command, `EFAULT` for a bad pointer, `EINVAL` for a feature word that there is not, `EPERM`
/// and `ENODATA` for the build id.
#[inline]
pub fn xen_version<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    if args[0] as u32 == version::XENVER_VERSION {
        return Ok(VERSION);
    }
    rest(call, args[0] as u32, args[1])
}

fn rest<M: Machine>(call: &mut Call<'_, M>, command: u32, argument: u64) -> Result<u64, Refusal> {
    match command {
        version::XENVER_EXTRAVERSION => text::<M, XEN_EXTRAVERSION_LEN>(call, argument, EXTRAVERSION),
        version::XENVER_COMPILE_INFO => compile_info(call, argument),
        version::XENVER_CAPABILITIES => {
            let kinds = if call.hv.machine.has_hvm() { CAPABILITIES_HVM } else { CAPABILITIES };
            text::<M, XEN_CAPABILITIES_INFO_LEN>(call, argument, kinds)
        }
        version::XENVER_CHANGESET => text::<M, XEN_CHANGESET_INFO_LEN>(call, argument, env!("CARGO_PKG_VERSION")),
        version::XENVER_PLATFORM_PARAMETERS => {
            call.write(argument, &PlatformParameters { virt_start: HYPERVISOR_VIRT_START })?;
            Ok(0)
        }
        version::XENVER_GET_FEATURES => get_features(call, argument),
        version::XENVER_PAGESIZE if argument != 0 => {
            Err(Refusal::errno(Errno::Inval, rule::PAGESIZE_TAKES_NO_ARGUMENT).with(Evidence::Value(argument)))
        }
        version::XENVER_PAGESIZE => Ok(4096),
        version::XENVER_GUEST_HANDLE => {
            let handle = *call.domain().handle.lock();
            call.write(argument, &handle)?;
            Ok(0)
        }
        version::XENVER_COMMANDLINE => {
            let shown = if call.domain().privileged { call.hv.options.command_line.as_str() } else { DENIED };
            text::<M, XEN_COMMANDLINE_LEN>(call, argument, shown)
        }
        version::XENVER_BUILD_ID => build_id(call, argument),
        _ => Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(Evidence::Value(command.into()))),
    }
}

/// Writes a text, padded with zeroes to the whole field that the ABI gives it.
fn text<M: Machine, const FIELD: usize>(call: &Call<'_, M>, to: u64, text: &str) -> Result<u64, Refusal> {
    call.write(to, &field::<FIELD>(text))?;
    Ok(0)
}

fn field<const FIELD: usize>(text: &str) -> [u8; FIELD] {
    let mut field = [0; FIELD];
    let len = text.len().min(FIELD - 1);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

fn compile_info<M: Machine>(call: &Call<'_, M>, to: u64) -> Result<u64, Refusal> {
    let info = CompileInfo {
        compiler: field("rustc"),
        compile_by: field("xenolith"),
        compile_domain: field(""),
        compile_date: field(env!("CARGO_PKG_VERSION")),
    };
    call.write(to, &info)?;
    Ok(0)
}

fn get_features<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let mut info: FeatureInfo = call.read(argument)?;
    if info.submap_idx >= features::XENFEAT_NR_SUBMAPS {
        let evidence = Evidence::Value(info.submap_idx.into());
        return Err(Refusal::errno(Errno::Inval, rule::FEATURE_SUBMAP).with(evidence));
    }
    info.submap = features_of(call.domain());
    call.write(argument, &info)?;
    Ok(0)
}

/// The features of a domain: those that are true of it.
fn features_of(domain: &Domain) -> u32 {
    if domain.hvm.is_some() {
        return crate::hvm::FEATURES;
    }
    let mut bits = 1 << features::XENFEAT_MMU_PT_UPDATE_PRESERVE_AD
        | 1 << features::XENFEAT_HIGHMEM_ASSIST
        | 1 << features::XENFEAT_GNTTAB_MAP_AVAIL_BITS
        | 1 << features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED
        | 1 << features::XENFEAT_DIRECT_MAPPED;
    if domain.assists.load(Ordering::Relaxed) & 1 << VMASST_TYPE_PAE_EXTENDED_CR3 != 0 {
        bits |= 1 << features::XENFEAT_PAE_PGDIR_ABOVE_4GB;
    }
    if domain.privileged {
        bits |= 1 << features::XENFEAT_DOM0;
    }
    bits
}

fn build_id<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    call.privileged()?;
    let id = call.hv.options.build_id;
    if id.is_empty() {
        return Err(Refusal::errno(Errno::NoData, rule::NO_BUILD_ID));
    }
    if argument == 0 {
        return Ok(id.len() as u64);
    }
    let wanted: BuildId = call.read(argument)?;
    if (wanted.len as usize) < id.len() {
        let evidence = Evidence::Limit { asked: wanted.len.into(), limit: id.len() as u64 };
        return Err(Refusal::errno(Errno::NoBufs, rule::BUILD_ID_BUFFER).with(evidence));
    }
    call.write(argument + size_of::<BuildId>() as u64, id)?;
    Ok(id.len() as u64)
}
