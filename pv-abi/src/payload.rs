//! The union at the end of a control operation's frame: bytes in which each command keeps its own struct, first byte first.

/// Gives a frame with a field `u` of bytes typed access to it: `payload` and `set_payload`.
macro_rules! payload {
    ($frame:ident, $size:literal) => {
        impl $frame {
            /// The command's own struct, read from the first bytes of `u`.
            ///
            /// A struct that is larger than `u` does not compile.
            pub fn payload<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self) -> T {
                const { assert!(size_of::<T>() <= $size, "larger than the union") };
                let mut value = T::new_zeroed();
                value.as_mut_bytes().copy_from_slice(&self.u[..size_of::<T>()]);
                value
            }

            /// Writes the command's own struct to the first bytes of `u`; the others stay.
            ///
            /// A struct that is larger than `u` does not compile.
            pub fn set_payload<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, value: &T) {
                const { assert!(size_of::<T>() <= $size, "larger than the union") };
                self.u[..size_of::<T>()].copy_from_slice(value.as_bytes());
            }
        }
    };
}

pub(crate) use payload;
