//! The ABI described as data: every wire struct with its C name, size, alignment and field offsets, every constant with
//! its C name and value.
//!
//! The structs and constants of this crate are declared through the macros `structs!` and `constants!`, which both
//! define the item and add it to the table of its module. [`MODULES`] lists those tables. The layout test compiles a C
//! program from them, against Xen's own headers, and compares; tools may use them to decode a memory dump by name.
//!
//! Invariants:
//! - a `#[repr(C)]` struct is declared through `structs!`, or is the atomic form of one and named in `atomics!` (the
//!   test scans the source for others);
//! - a constant's Rust name is its C name in upper case, without leading or double underscores, with one between words.

/// A wire struct and what its C counterpart is called.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// The Rust name.
    pub name: &'static str,
    /// The type as C spells it, for example `struct evtchn_send`; `struct netif_extra_info.u.gso` is the type of that field.
    pub c_name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// The fields in declaration order; padding is left out.
    pub fields: &'static [Field],
}

/// A field of a wire struct.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The Rust name.
    pub name: &'static str,
    /// The C designator where it is not the Rust name (less a trailing underscore): `console.domU.mfn`.
    pub c_name: Option<&'static str>,
    /// Offset from the start of the struct, in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// A constant and what it is called in C.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// The Rust name.
    pub name: &'static str,
    /// The C name.
    pub c_name: &'static str,
    /// The value, sign kept.
    pub value: i128,
}

/// What one source file declares, and the C header it transcribes.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// The header below `xen/`, for example `event_channel.h`.
    pub header: &'static str,
    /// The file's structs.
    pub structs: &'static [Struct],
    /// The atomic forms of structs: the same layout, seen by two sides at once.
    pub atomics: &'static [Struct],
    /// The file's constants.
    pub constants: &'static [Constant],
}

impl Module {
    /// A file that declares nothing.
    const fn empty(header: &'static str) -> Module {
        Module { header, structs: &[], atomics: &[], constants: &[] }
    }
}

/// Declares wire structs and the table [`Struct`] of them, `STRUCTS`.
///
/// A struct names its C type in brackets; a field names its C designator in brackets where it differs. Fields called
/// `_pad…` are C's implicit or explicit padding and have no counterpart.
macro_rules! structs {
    (
        header $header:literal;
        $(
            $(#[$meta:meta])*
            pub struct $name:ident [$c:literal] {
                $( $(#[$fmeta:meta])* pub $field:ident $([$cfield:literal])? : $type:ty, )*
            }
        )*
    ) => {
        $(
            $(#[$meta])*
            ///
            #[doc = concat!("Xen: `", $c, "` in `public/", $header, "`.")]
            #[repr(C)]
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            pub struct $name {
                $( $(#[$fmeta])* pub $field: $type, )*
            }

            impl Default for $name {
                /// All bytes zero.
                fn default() -> Self {
                    zerocopy::FromZeros::new_zeroed()
                }
            }
        )*

        pub(crate) const STRUCTS: &[crate::layout::Struct] = &[ $(
            crate::layout::Struct {
                name: stringify!($name),
                c_name: $c,
                size: core::mem::size_of::<$name>(),
                align: core::mem::align_of::<$name>(),
                fields: &[ $(
                    crate::layout::Field {
                        name: stringify!($field),
                        c_name: crate::layout::optional!($($cfield)?),
                        offset: core::mem::offset_of!($name, $field),
                        size: core::mem::size_of::<$type>(),
                    },
                )* ],
            },
        )* ];
    };
}

/// Declares constants and the table [`Constant`] of them, `CONSTANTS`.
///
/// A constant names its C name in brackets where that is not spelled exactly alike.
macro_rules! constants {
    (
        header $header:literal;
        $( $(#[$meta:meta])* pub const $name:ident $([$c:ident])? : $type:ty = $value:expr; )*
    ) => {
        $(
            $(#[$meta])*
            ///
            #[doc = concat!("Xen: `", crate::layout::c_name!($name $($c)?), "` in `public/", $header, "`.")]
            pub const $name: $type = $value;
        )*

        pub(crate) const CONSTANTS: &[crate::layout::Constant] = &[ $(
            crate::layout::Constant {
                name: stringify!($name),
                c_name: crate::layout::c_name!($name $($c)?),
                value: $name as i128,
            },
        )* ];
    };
}

/// Declares the table [`Struct`] of the atomic forms of structs, `ATOMICS`.
///
/// A struct names its C type in brackets; a field names its C designator in brackets where it differs.
macro_rules! atomics {
    ($( $name:ident [$c:literal] { $( $field:ident $([$cfield:literal])? ),* $(,)? } )*) => {
        pub(crate) const ATOMICS: &[crate::layout::Struct] = &[ $(
            crate::layout::Struct {
                name: stringify!($name),
                c_name: $c,
                size: core::mem::size_of::<$name>(),
                align: core::mem::align_of::<$name>(),
                fields: &[ $(
                    crate::layout::Field {
                        name: stringify!($field),
                        c_name: crate::layout::optional!($($cfield)?),
                        offset: core::mem::offset_of!($name, $field),
                        size: crate::layout::field_size(|value: &$name| &value.$field),
                    },
                )* ],
            },
        )* ];
    };
}

/// The size of what `_field` picks out of a struct.
pub(crate) const fn field_size<Whole, Part>(_field: fn(&Whole) -> &Part) -> usize {
    size_of::<Part>()
}

/// The C name of a constant: the second identifier where there is one.
macro_rules! c_name {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $c:ident) => {
        stringify!($c)
    };
}

/// `Some` of what is there.
macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

pub(crate) use {atomics, c_name, constants, optional, structs};

/// One file's tables.
macro_rules! module {
    ($header:literal, $($at:ident)::+, $($table:ident: $name:ident),+) => {
        {
            use crate::$($at)::+ as file;
            Module { $($table: file::$name,)+ ..Module::empty($header) }
        }
    };
}

/// Every file's tables.
pub const MODULES: &[Module] = &[
    module!("arch-x86/xen.h", arch, structs: STRUCTS, constants: CONSTANTS),
    module!("callback.h", callback, structs: STRUCTS, constants: CONSTANTS),
    module!("arch-x86/cpuid.h", cpuid, constants: CONSTANTS),
    module!("domctl.h", domctl, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::device, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::domain, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::hvm, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::memory, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::monitor, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::schedule, structs: STRUCTS, constants: CONSTANTS),
    module!("domctl.h", domctl::vcpu, structs: STRUCTS, constants: CONSTANTS),
    module!("elfnote.h", elfnote, constants: CONSTANTS),
    module!("errno.h", errno, constants: CONSTANTS),
    module!("event_channel.h", event_channel, structs: STRUCTS, constants: CONSTANTS),
    module!("features.h", features, constants: CONSTANTS),
    module!("grant_table.h", grant_table, structs: STRUCTS, atomics: ATOMICS, constants: CONSTANTS),
    module!("hvm/hvm_op.h", hvm, structs: STRUCTS, constants: CONSTANTS),
    module!("hvm/dm_op.h", hvm::dm_op, structs: STRUCTS, constants: CONSTANTS),
    module!("hvm/ioreq.h", hvm::ioreq, structs: STRUCTS, constants: CONSTANTS),
    module!("hvm/params.h", hvm::params, constants: CONSTANTS),
    module!("arch-x86/hvm/start_info.h", hvm::start_info, structs: STRUCTS, constants: CONSTANTS),
    module!("hvm/save.h", hvm::save, structs: STRUCTS, constants: CONSTANTS),
    module!("io/blkif.h", io::blkif, structs: STRUCTS, constants: CONSTANTS),
    module!("io/console.h", io::console, structs: STRUCTS, atomics: ATOMICS),
    module!("io/netif.h", io::netif, structs: STRUCTS, constants: CONSTANTS),
    module!("io/ring.h", io::ring, structs: STRUCTS, atomics: ATOMICS),
    module!("io/xenbus.h", io::xenbus, constants: CONSTANTS),
    module!("io/xs_wire.h", io::xs_wire, structs: STRUCTS, atomics: ATOMICS, constants: CONSTANTS),
    module!("arch-x86/xen-mca.h", mca, structs: STRUCTS, constants: CONSTANTS),
    module!("memory.h", memory, structs: STRUCTS, constants: CONSTANTS),
    module!("nmi.h", nmi, structs: STRUCTS, constants: CONSTANTS),
    module!("physdev.h", physdev, structs: STRUCTS, constants: CONSTANTS),
    module!("platform.h", platform, structs: STRUCTS, constants: CONSTANTS),
    module!("platform.h", platform::firmware, structs: STRUCTS, constants: CONSTANTS),
    module!("platform.h", platform::power, structs: STRUCTS, constants: CONSTANTS),
    module!("sched.h", sched, structs: STRUCTS, constants: CONSTANTS),
    module!("sysctl.h", sysctl, structs: STRUCTS, constants: CONSTANTS),
    module!("sysctl.h", sysctl::cpu, structs: STRUCTS, constants: CONSTANTS),
    module!("sysctl.h", sysctl::machine, structs: STRUCTS, constants: CONSTANTS),
    module!("sysctl.h", sysctl::trace, structs: STRUCTS, constants: CONSTANTS),
    module!("vcpu.h", vcpu, structs: STRUCTS, constants: CONSTANTS),
    module!("version.h", version, structs: STRUCTS, constants: CONSTANTS),
    module!("xen.h", xen, structs: STRUCTS, constants: CONSTANTS),
    module!("xen.h", xen::shared, structs: STRUCTS, atomics: ATOMICS, constants: CONSTANTS),
    module!("xen.h", xen::start, structs: STRUCTS, constants: CONSTANTS),
];
