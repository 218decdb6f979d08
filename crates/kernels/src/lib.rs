//! Numeric kernels on slices: no tensors, no graph, nothing of candle and nothing of our other crates.
//!
//! Every kernel is a safe function that checks its sizes, and has a scalar version that is the
//! definition of the result; vector versions are chosen at run time in one place ([`simd`]).
//!
//! Shapes of arguments are stated in the notation that [`map`] defines.
//!
//! Upwards from what everything stands on: numbers ([`dtype`]), registers ([`simd`]), numbers in memory
//! ([`element`]), maps ([`map`], [`planes`]), threads ([`team`]), how a kernel is run ([`run`]), and the kernels.
#![allow(unsafe_code)] // one of the two crates that may; each block says why it is sound

pub mod activation;
pub mod arena;
pub mod batch_norm;
pub mod conv;
pub mod dtype;
pub mod element;
pub mod flatten;
pub mod linear;
pub mod loss;
pub mod lrn;
pub mod map;
pub mod peak;
pub mod planes;
pub mod pool;
pub mod run;
pub mod sgd;
pub mod simd;
pub mod team;
pub mod window_average;
