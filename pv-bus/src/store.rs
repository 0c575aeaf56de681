//! Typed access to xenstore keys.
//!
//! A key is text. These functions turn it into the number, flag or state a driver wants, give the answer for a missing
//! optional key a name, and run transactions until they take.

use alloc::format;
use alloc::string::String;
use core::fmt::Display;
use core::str::FromStr;

use crate::error::StoreError;
use crate::hal::{Store, Transaction};

/// How often a transaction is tried before its owner is told that it does not take.
const TRANSACTION_ATTEMPTS: u32 = 64;

/// `directory/name`.
#[must_use]
pub fn join(directory: &str, name: &str) -> String {
    format!("{directory}/{name}")
}

/// Reads a node as text.
///
/// # Errors
/// The store's answer; [`StoreError::Invalid`] when the value is not UTF-8.
pub fn read_text<S: Store>(store: &mut S, transaction: Transaction, path: &str) -> Result<String, StoreError> {
    let bytes = store.read(transaction, path)?;
    String::from_utf8(bytes).map_err(|_| StoreError::Invalid)
}

/// Reads a node as a decimal number.
///
/// # Errors
/// The store's answer; [`StoreError::Invalid`] when the value is not such a number.
pub fn read_number<S: Store, N: FromStr>(store: &mut S, transaction: Transaction, path: &str) -> Result<N, StoreError> {
    let text = read_text(store, transaction, path)?;
    text.trim().parse().map_err(|_| StoreError::Invalid)
}

/// Reads an optional number: `default` when the node is not there or is not a number.
pub fn read_number_or<S: Store, N: FromStr>(store: &mut S, path: &str, default: N) -> N {
    read_number(store, Transaction::NONE, path).unwrap_or(default)
}

/// Reads a feature flag: true for any number but 0, false when the node is missing or says anything else.
pub fn read_flag<S: Store>(store: &mut S, path: &str) -> bool {
    read_number_or::<S, u32>(store, path, 0) != 0
}

/// Writes a number or text.
///
/// # Errors
/// The store's answer.
pub fn write_value<S: Store>(
    store: &mut S,
    transaction: Transaction,
    path: &str,
    value: impl Display,
) -> Result<(), StoreError> {
    store.write(transaction, path, format!("{value}").as_bytes())
}

/// Runs `body` in a transaction and commits it, again from the start for as long as the store says `EAGAIN`.
///
/// # Errors
/// The first error of `body` (nothing is committed then); [`StoreError::Again`] after 64 attempts.
pub fn transaction<S: Store, R>(
    store: &mut S,
    mut body: impl FnMut(&mut S, Transaction) -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    for _ in 0..TRANSACTION_ATTEMPTS {
        match attempt(store, &mut body) {
            Err(StoreError::Again) => {}
            done => return done,
        }
    }
    log::warn!("store: transaction.never_takes: {TRANSACTION_ATTEMPTS} attempts, all met other changes");
    Err(StoreError::Again)
}

fn attempt<S: Store, R>(
    store: &mut S,
    body: &mut impl FnMut(&mut S, Transaction) -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    let open = store.transaction_start()?;
    match body(store, open) {
        Ok(value) => store.transaction_end(open, true).map(|()| value),
        Err(error) => {
            // The transaction is thrown away; its own answer adds nothing to the error that ended it.
            let _ = store.transaction_end(open, false);
            Err(error)
        }
    }
}
