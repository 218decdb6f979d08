//! Numeric kernels on slices: no tensors, no graph, nothing of candle and nothing of our other crates.
//!
//! Every kernel is a safe function that checks its sizes, and has a scalar version that is the
//! definition of the result; vector versions are chosen at run time in one place ([`simd`]).
//!
//! Letters: N images, C input channels, K output channels, H and W rows and columns of a map,
//! R and S rows and columns of a filter.
#![allow(unsafe_code)] // the one crate that may; each block says why it is sound

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
