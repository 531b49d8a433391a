//! File systems: which there are, and the plan to hold them still.
