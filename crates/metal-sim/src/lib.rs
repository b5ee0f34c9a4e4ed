//! metal-sim.
