//! The paper's Figure 5 as data, and GoogLeNet's table 1: one row per Inception module.
//!
//! Two cells of the printed table contradict its output column. The table prints 128 for the pool
//! projections of 4c and 4d; that gives 608 channels, but the column says 576. It prints 3c and 4e
//! with the size of their input although they have stride 2. Google's code
//! (`tf_slim/nets/inception_v2.py`) and the output column agree on 96 and on halving, so these are
//! the defaults. 128 stays an option because the public weights were trained with it
//! (<https://github.com/Cadene/pretrained-models.pytorch>).

/// Widths of the branches of one Inception module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Module name: `3a` to `5b`.
    pub name: &'static str,
    /// Width of the 1x1 branch; 0 for the two modules with stride 2, which have none.
    pub conv_1x1: usize,
    /// Width of the 1x1 convolution before the 3x3 one.
    pub conv_3x3_reduce: usize,
    /// Width of the 3x3 convolution.
    pub conv_3x3: usize,
    /// Width of the 1x1 convolution before the double 3x3 branch.
    pub double_3x3_reduce: usize,
    /// Width of both 3x3 convolutions of the double branch.
    pub double_3x3: usize,
    /// The pooling branch.
    pub pool: PoolBranch,
}

/// The pooling branch of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolBranch {
    /// 3x3 average pool with stride 1, then a 1x1 projection of this width.
    Average(usize),
    /// 3x3 maximum pool with stride 1, then a 1x1 projection of this width.
    Max(usize),
    /// 3x3 maximum pool with stride 2, no projection: the module halves the map.
    PassThrough,
}

impl Row {
    /// Whether the module halves the map.
    pub fn has_stride_2(&self) -> bool {
        self.pool == PoolBranch::PassThrough
    }
}

/// The ten modules of Figure 5, with `pool_proj_4c4d` as the projection width of 4c and 4d.
#[rustfmt::skip]
pub fn rows(pool_proj_4c4d: usize) -> [Row; 10] {
    use PoolBranch::{Average, Max, PassThrough};
    let row = |name, conv_1x1, conv_3x3_reduce, conv_3x3, double_3x3_reduce, double_3x3, pool| Row {
        name, conv_1x1, conv_3x3_reduce, conv_3x3, double_3x3_reduce, double_3x3, pool,
    };
    [
        //        1x1  3x3r  3x3  dblr  dbl  pool
        row("3a",  64,   64,  64,   64,  96, Average(32)),
        row("3b",  64,   64,  96,   64,  96, Average(64)),
        row("3c",   0,  128, 160,   64,  96, PassThrough),
        row("4a", 224,   64,  96,   96, 128, Average(128)),
        row("4b", 192,   96, 128,   96, 128, Average(128)),
        row("4c", 160,  128, 160,  128, 160, Average(pool_proj_4c4d)),
        row("4d",  96,  128, 192,  160, 192, Average(pool_proj_4c4d)),
        row("4e",   0,  128, 192,  192, 256, PassThrough),
        row("5a", 352,  192, 320,  160, 224, Average(128)),
        row("5b", 352,  192, 320,  192, 224, Max(128)),
    ]
}

/// Widths of the branches of one module of GoogLeNet (Szegedy et al. 2014, table 1,
/// <https://arxiv.org/abs/1409.4842>). All have stride 1 and a 3x3 maximum pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoogLeNetRow {
    /// Module name: `3a` to `5b`.
    pub name: &'static str,
    /// Width of the 1x1 branch.
    pub conv_1x1: usize,
    /// Width of the 1x1 convolution before the 3x3 one.
    pub conv_3x3_reduce: usize,
    /// Width of the 3x3 convolution.
    pub conv_3x3: usize,
    /// Width of the 1x1 convolution before the 5x5 one.
    pub conv_5x5_reduce: usize,
    /// Width of the 5x5 convolution.
    pub conv_5x5: usize,
    /// Width of the 1x1 projection after the pool.
    pub pool_proj: usize,
}

/// The nine modules of GoogLeNet's table 1.
#[rustfmt::skip]
pub fn googlenet_rows() -> [GoogLeNetRow; 9] {
    let row = |name, conv_1x1, conv_3x3_reduce, conv_3x3, conv_5x5_reduce, conv_5x5, pool_proj| {
        GoogLeNetRow {
            name, conv_1x1, conv_3x3_reduce, conv_3x3, conv_5x5_reduce, conv_5x5, pool_proj,
        }
    };
    [
        //        1x1  3x3r  3x3  5x5r  5x5  proj
        row("3a",  64,   96, 128,   16,  32,  32),
        row("3b", 128,  128, 192,   32,  96,  64),
        row("4a", 192,   96, 208,   16,  48,  64),
        row("4b", 160,  112, 224,   24,  64,  64),
        row("4c", 128,  128, 256,   24,  64,  64),
        row("4d", 112,  144, 288,   32,  64,  64),
        row("4e", 256,  160, 320,   32, 128, 128),
        row("5a", 256,  160, 320,   32, 128, 128),
        row("5b", 384,  192, 384,   48, 128, 128),
    ]
}
