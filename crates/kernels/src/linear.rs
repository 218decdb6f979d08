//! The fully connected layer: `y = x w^T + b`, all matrices row by row.

use crate::simd::isa::Isa;
use crate::simd::lanes::{LANES, Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{chunks, split};
use crate::team::threads::Team;

/// Rows of a tile of products: with four columns, sixteen sums stay in registers.
const ROWS: usize = 4;

/// Rows of a tile whose columns are lanes.
const TALL: usize = 8;

/// Sizes of a layer: its matrices are `x` `[n][features]`, `w` `[classes][features]`, `b` `[classes]` and
/// `y` `[n][classes]`, all of f32, and gradients are laid out as what they are gradients of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Inputs of one image.
    pub features: usize,
    /// Outputs of one image.
    pub classes: usize,
}

impl Linear {
    /// Overwrites `y`.
    ///
    /// # Panics
    /// If a slice does not have the length that the sizes ask for.
    pub fn forward(&self, team: &Team, isa: Isa, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32]) {
        let Linear { features, classes } = *self;
        let images = self.check(x, w, y);
        assert_eq!(b.len(), classes, "values of the bias");
        split(team, images.div_ceil(ROWS), chunks(y, ROWS * classes), |group, y| {
            let rows = y.len() / classes;
            let x = &x[group * ROWS * features..][..rows * features];
            let mut piece = Forward { features, classes, x, w, b, y };
            dispatch!(isa, s => piece.run(s));
        });
    }

    /// Overwrites `dx`, the gradient of `x`.
    ///
    /// # Panics
    /// As [`Linear::forward`].
    pub fn backward_input(&self, team: &Team, isa: Isa, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let Linear { features, classes } = *self;
        let images = self.check(dx, w, dy);
        split(team, images.div_ceil(TALL), chunks(dx, TALL * features), |group, dx| {
            // dx[image][feature] sums over classes: row `image` of dy against column `feature` of w.
            let a = Factors { values: dy, first: group * TALL * classes, row: classes, step: 1 };
            let mut piece = Outer { a, steps: classes, b: w, columns: features, out: dx };
            dispatch!(isa, s => piece.run(s));
        });
    }

    /// Overwrites `dw` and `db`, the gradients of `w` and `b`.
    ///
    /// # Panics
    /// As [`Linear::forward`].
    pub fn backward_weights(
        &self,
        team: &Team,
        isa: Isa,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        db: &mut [f32],
    ) {
        let Linear { features, classes } = *self;
        let images = self.check(x, dw, dy);
        assert_eq!(db.len(), classes, "values of the bias gradient");
        split(team, classes.div_ceil(TALL), chunks(dw, TALL * features), |group, dw| {
            // dw[class][feature] sums over images: column `class` of dy against column of x.
            let a = Factors { values: dy, first: group * TALL, row: 1, step: classes };
            let mut piece = Outer { a, steps: images, b: x, columns: features, out: dw };
            dispatch!(isa, s => piece.run(s));
        });
        for (class, db) in db.iter_mut().enumerate() {
            *db = dy.iter().skip(class).step_by(classes).map(|&d| f64::from(d)).sum::<f64>() as f32;
        }
    }

    /// The number of images, if all lengths fit together.
    fn check(&self, x: &[f32], w: &[f32], y: &[f32]) -> usize {
        let Linear { features, classes } = *self;
        let images = y.len() / classes;
        assert!(
            x.len() == images * features
                && w.len() == classes * features
                && y.len() == images * classes,
            "{features} features and {classes} classes: found {} inputs, {} weights, {} outputs",
            x.len(),
            w.len(),
            y.len()
        );
        images
    }
}

/// Rows of y: products of rows of x and rows of w.
struct Forward<'a> {
    features: usize,
    classes: usize,
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S) {
        let full = self.x.len() == ROWS * self.features;
        let whole = if full { self.classes / ROWS * ROWS } else { 0 };
        for class in (0..whole).step_by(ROWS) {
            self.tile::<S, ROWS>(s, 0, class);
        }
        for class in whole..self.classes {
            for row in 0..self.x.len() / self.features {
                self.tile::<S, 1>(s, row, class);
            }
        }
    }

    /// `N` rows of x with as many of w.
    #[inline(always)]
    fn tile<S: Simd, const N: usize>(&mut self, s: S, row: usize, class: usize) {
        let x: [&[f32]; N] =
            std::array::from_fn(|i| &self.x[(row + i) * self.features..][..self.features]);
        let w: [&[f32]; N] =
            std::array::from_fn(|j| &self.w[(class + j) * self.features..][..self.features]);
        let (x_lanes, w_lanes) = (x.map(pixels), w.map(pixels));
        let mut sums = [[s.zero(); N]; N];
        for f in 0..self.features / LANES {
            let x: [S::Value; N] = std::array::from_fn(|i| s.load(&x_lanes[i][f]));
            for j in 0..N {
                let w = s.load(&w_lanes[j][f]);
                for i in 0..N {
                    sums[i][j] = s.mul_add(x[i], w, sums[i][j]);
                }
            }
        }
        for i in 0..N {
            for j in 0..N {
                let mut sum: f32 = s.array(sums[i][j]).iter().sum();
                for f in self.features / LANES * LANES..self.features {
                    sum += x[i][f] * w[j][f];
                }
                self.y[(row + i) * self.classes + class + j] = sum + self.b[class + j];
            }
        }
    }
}

/// A matrix of factors: element (row, step) is `values[first + row * self.row + step * self.step]`.
struct Factors<'a> {
    values: &'a [f32],
    first: usize,
    row: usize,
    step: usize,
}

impl Factors<'_> {
    #[inline(always)]
    fn at(&self, row: usize, step: usize) -> f32 {
        self.values[self.first + row * self.row + step * self.step]
    }
}

/// Rows of `out`, each the sum over steps of a factor times a row of `b`.
struct Outer<'a> {
    a: Factors<'a>,
    steps: usize,
    b: &'a [f32],
    columns: usize,
    out: &'a mut [f32],
}

impl Outer<'_> {
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S) {
        let rows = self.out.len() / self.columns;
        if rows == TALL {
            self.rows::<S, TALL>(s, 0);
        } else {
            for row in 0..rows {
                self.rows::<S, 1>(s, row);
            }
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const N: usize>(&mut self, s: S, row: usize) {
        let wide = self.columns / (2 * LANES) * 2 * LANES;
        for column in (0..wide).step_by(2 * LANES) {
            self.tile::<S, N>(s, row, column);
        }
        for column in wide..self.columns {
            for row in row..row + N {
                let products = (0..self.steps)
                    .map(|step| self.a.at(row, step) * self.b[step * self.columns + column]);
                self.out[row * self.columns + column] = products.sum();
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const N: usize>(&mut self, s: S, row: usize, column: usize) {
        let mut sums = [[s.zero(); 2]; N];
        for step in 0..self.steps {
            let b = pixels(&self.b[step * self.columns + column..][..2 * LANES]);
            let b = [s.load(&b[0]), s.load(&b[1])];
            for i in 0..N {
                let factor = s.splat(self.a.at(row + i, step));
                sums[i] =
                    [s.mul_add(factor, b[0], sums[i][0]), s.mul_add(factor, b[1], sums[i][1])];
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = &mut self.out[(row + i) * self.columns + column..][..2 * LANES];
            for (out, &sum) in pixels_mut(out).iter_mut().zip(sums) {
                s.store(sum, out);
            }
        }
    }
}
