use super::*;
use crate::fake::Bed;
