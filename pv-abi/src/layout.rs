//! The ABI described as data: every wire struct with its C name, size, alignment and field offsets, every constant with
//! its C name and value.
//!
//! The structs and constants of this crate are declared through the macros [`structs!`] and [`constants!`], which both
//! define the item and add it to the table of its module. [`MODULES`] lists those tables. The layout test compiles a C
//! program from them, against Xen's own headers, and compares; tools may use them to decode a memory dump by name.
//!
//! Invariants:
//! - a `#[repr(C)]` struct is declared through [`structs!`] (the test scans the source for others);
//! - a constant's Rust name is its C name in upper case without leading underscores.

/// A wire struct and what its C counterpart is called.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// The Rust name.
    pub name: &'static str,
    /// The type as C spells it, for example `struct evtchn_send`.
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
    /// The file's constants.
    pub constants: &'static [Constant],
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

pub(crate) use {c_name, constants, optional, structs};
