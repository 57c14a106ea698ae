//! Whole lives, recorded and replayed.
