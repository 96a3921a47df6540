//! Conversations as they were on the wire.
use crate::proto::Sample;

pub static SAMPLES: &[Sample] = &[];
