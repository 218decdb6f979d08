//! The minimum of a smooth function, by L-BFGS (Nocedal & Wright 2006, algorithms 7.4 and 7.5).

use std::collections::VecDeque;

/// Steps that the curvature is learnt from. Nocedal & Wright say 3 to 20 (section 7.2).
const MEMORY: usize = 10;

/// Constants of the weak Wolfe conditions (Nocedal & Wright, section 3.1).
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;

/// Lengths of a step that are tried.
const MOST_TRIES: usize = 50;

/// When a search ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At a point where no component of the gradient is larger than this.
    pub gradient: f64,
    /// Behind so many steps at the most.
    pub steps: usize,
}

/// What a search ended with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The value of the function.
    pub value: f64,
    /// Steps made.
    pub steps: usize,
    /// Whether the gradient is as small as was asked for.
    pub is_minimum: bool,
}

/// Moves `point` to a minimum of `function`, which gives its value and fills its gradient.
///
/// # Errors
/// That of `function`.
pub fn minimise<E>(
    point: &mut Vec<f64>,
    limits: Limits,
    mut function: impl FnMut(&[f64], &mut [f64]) -> Result<f64, E>,
) -> Result<Found, E> {
    let n = point.len();
    let (mut gradient, mut next, mut next_gradient) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let mut value = function(point, &mut gradient)?;
    let mut steps = 0;
    let mut history = VecDeque::with_capacity(MEMORY);
    loop {
        let largest = gradient.iter().fold(0.0, |most: f64, part| most.max(part.abs()));
        let is_minimum = largest <= limits.gradient;
        if is_minimum || steps == limits.steps {
            return Ok(Found { value, steps, is_minimum });
        }
        let direction = direction(&history, &gradient);
        let slope = dot(&direction, &gradient);
        // Without history nothing is known of the length: this one moves the point by 1 at most.
        let mut length = if history.is_empty() {
            1.0_f64.min(1.0 / dot(&gradient, &gradient).sqrt())
        } else {
            1.0
        };
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut next_value = None;
        // Bisection (Lewis & Overton 2013, algorithm 4.6), which ends for every smooth function.
        for _ in 0..MOST_TRIES {
            for ((next, from), along) in next.iter_mut().zip(&*point).zip(&direction) {
                *next = from + length * along;
            }
            let tried = function(&next, &mut next_gradient)?;
            let falls = tried <= value + DECREASE * length * slope;
            if !falls {
                high = length;
            } else if dot(&direction, &next_gradient) < CURVATURE * slope {
                low = length;
            } else {
                next_value = Some(tried);
                break;
            }
            length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * length };
        }
        // Rounding hides what is left to gain.
        let Some(next_value) = next_value else { return Ok(Found { value, steps, is_minimum }) };
        if history.len() == MEMORY {
            history.pop_front();
        }
        history.push_back(Step::between(point, &next, &gradient, &next_gradient));
        std::mem::swap(point, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = next_value;
        steps += 1;
    }
}

/// How the gradient changed along a step.
struct Step {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product, which the conditions make positive.
    product: f64,
}

impl Step {
    fn between(from: &[f64], to: &[f64], old: &[f64], new: &[f64]) -> Step {
        let difference =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let (step, change) = (difference(to, from), difference(new, old));
        let product = dot(&step, &change);
        Step { step, change, product }
    }
}

/// Where to go from a point with this gradient.
fn direction(history: &VecDeque<Step>, gradient: &[f64]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|part| -part).collect();
    let mut shares = Vec::with_capacity(history.len());
    for Step { step, change, product } in history.iter().rev() {
        let share = dot(step, &direction) / product;
        add(&mut direction, -share, change);
        shares.push(share);
    }
    if let Some(Step { change, product, .. }) = history.back() {
        let scale = product / dot(change, change);
        direction.iter_mut().for_each(|part| *part *= scale);
    }
    for (Step { step, change, product }, share) in history.iter().zip(shares.into_iter().rev()) {
        let rest = share - dot(change, &direction) / product;
        add(&mut direction, rest, step);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const LIMITS: Limits = Limits { gradient: 1e-9, steps: 1000 };

    #[test]
    fn the_minimum_of_a_quadratic_is_found_whatever_its_scales() {
        // Curvatures from 1e-4 to 1e4.
        let scales: Vec<f64> = (0..9).map(|power| 10.0_f64.powi(power - 4)).collect();
        let mut point = vec![3.0; 9];
        let found = minimise(&mut point, LIMITS, |x, gradient| {
            let mut value = 0.0;
            for (at, (x, scale)) in x.iter().zip(&scales).enumerate() {
                let away = x - at as f64;
                value += 0.5 * scale * away * away;
                gradient[at] = scale * away;
            }
            Ok::<_, Infallible>(value)
        });
        assert!(found.unwrap().is_minimum);
        for (at, x) in point.iter().enumerate() {
            assert!((x - at as f64).abs() < 1e-4, "{point:?}");
        }
    }

    /// A valley with steep sides (Rosenbrock 1960), whose minimum is at (1, 1).
    #[test]
    fn a_bent_valley_is_followed() {
        let mut point = vec![-1.2, 1.0];
        let valley = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            Ok::<_, Infallible>(a * a + 100.0 * b * b)
        };
        let found = minimise(&mut point, LIMITS, valley).unwrap();
        assert!(found.is_minimum && found.steps < 100, "{found:?}");
        assert!(point.iter().all(|x| (x - 1.0).abs() < 1e-6), "{point:?}");
        let few = Limits { steps: 3, ..LIMITS };
        let found = minimise(&mut vec![-1.2, 1.0], few, valley).unwrap();
        assert!(!found.is_minimum && found.steps == 3);
    }

    #[test]
    fn an_error_ends_the_search() {
        let found = minimise(&mut vec![1.0], LIMITS, |_, _| Err::<f64, _>("stopped"));
        assert_eq!(found, Err("stopped"));
    }
}
