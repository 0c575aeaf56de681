#![allow(missing_docs, dead_code)]
pub(crate) mod domctl {
    use zerocopy::*;
    macro_rules! s { ($($name:ident { $($f:ident : $t:ty,)* })*) => { $(
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)] #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $f: $t,)* } )* } }
    s! {
        Domctl { cmd: u32, interface_version: u32, domain: u16, _pad0: [u16; 3], u: [u8; 128], }
        DomctlCreatedomain { ssidref: u32, handle: [u8; 16], flags: u32, iommu_opts: u32, max_vcpus: u32, max_evtchn_port: u32, max_grant_frames: i32, max_maptrack_frames: i32, grant_opts: u32, vmtrace_size: u32, cpupool_id: u32, arch: [u32; 2], }
        DomctlMaxVcpus { max: u32, }
        DomctlMaxMem { max_memkb: u64, }
        DomctlHypercallInit { gmfn: u64, }
        DomctlVcpucontext { vcpu: u32, _pad0: u32, ctxt: u64, }
        DomctlGetdomaininfo { domain: u16, pad1: u16, flags: u32, tot_pages: u64, max_pages: u64, outstanding_pages: u64, shr_pages: u64, paged_pages: u64, shared_info_frame: u64, cpu_time: u64, nr_online_vcpus: u32, max_vcpu_id: u32, ssidref: u32, handle: [u8; 16], cpupool: u32, gpaddr_bits: u8, pad2: [u8; 7], arch_config: [u32; 2], }
    }
    pub(crate) const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;
    pub(crate) const XEN_DOMCTL_CREATEDOMAIN: u32 = 1;
    pub(crate) const XEN_DOMCTL_DESTROYDOMAIN: u32 = 2;
    pub(crate) const XEN_DOMCTL_PAUSEDOMAIN: u32 = 3;
    pub(crate) const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
    pub(crate) const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
    pub(crate) const XEN_DOMCTL_MAX_MEM: u32 = 11;
    pub(crate) const XEN_DOMCTL_SETVCPUCONTEXT: u32 = 12;
    pub(crate) const XEN_DOMCTL_MAX_VCPUS: u32 = 15;
    pub(crate) const XEN_DOMCTL_HYPERCALL_INIT: u32 = 22;
    pub(crate) const XEN_DOMINF_DYING: u32 = 1;
    pub(crate) const XEN_DOMINF_SHUTDOWN: u32 = 4;
    pub(crate) const XEN_DOMINF_PAUSED: u32 = 8;
    pub(crate) const XEN_DOMINF_BLOCKED: u32 = 16;
    pub(crate) const XEN_DOMINF_RUNNING: u32 = 32;
    pub(crate) const XEN_DOMINF_SHUTDOWNMASK: u32 = 255;
    pub(crate) const XEN_DOMINF_SHUTDOWNSHIFT: u32 = 16;
}
pub(crate) mod sysctl {
    use zerocopy::*;
    #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(crate) struct Sysctl {
        pub(crate) cmd: u32,
        pub(crate) interface_version: u32,
        pub(crate) u: [u8; 128],
    }
    #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(crate) struct SysctlReadconsole {
        pub(crate) clear: u8,
        pub(crate) incremental: u8,
        pub(crate) pad: u16,
        pub(crate) index: u32,
        pub(crate) buffer: u64,
        pub(crate) count: u32,
        pub(crate) _pad1: u32,
    }
    pub(crate) const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;
    pub(crate) const XEN_SYSCTL_READCONSOLE: u32 = 1;
}
