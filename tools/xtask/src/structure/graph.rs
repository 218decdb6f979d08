//! Arrows between the files of a crate: their circles, and those that run back up.

use std::collections::{BTreeMap, BTreeSet};

/// From, to, and the names that the first takes of the second.
pub(crate) type Arrows<T> = BTreeMap<(T, T), BTreeSet<String>>;

/// Largest circle whose fewest arrows back are sought among all orders.
const MOST_SEARCHED: usize = 16;

/// The groups of two or more that reach each other.
pub(crate) fn circles<T: Ord + Clone>(arrows: &Arrows<T>) -> Vec<Vec<T>> {
    let mut reached: BTreeMap<&T, BTreeSet<&T>> = BTreeMap::new();
    for (from, _) in arrows.keys() {
        let mut open = vec![from];
        let seen = reached.entry(from).or_default();
        if !seen.is_empty() {
            continue;
        }
        while let Some(at) = open.pop() {
            for (_, to) in arrows.keys().filter(|(from, _)| from == at) {
                if seen.insert(to) {
                    open.push(to);
                }
            }
        }
    }
    let mut left: BTreeSet<&T> = reached.keys().copied().collect();
    let mut circles = Vec::new();
    while let Some(first) = left.pop_first() {
        let is_in = |other: &&T| reached[first].contains(*other) && reached[*other].contains(first);
        let others: Vec<&T> = left.iter().copied().filter(is_in).collect();
        if !others.is_empty() {
            left.retain(|one| !others.contains(one));
            circles.push([first].into_iter().chain(others).cloned().collect());
        }
    }
    circles
}

/// The fewest arrows without which the rest runs one way. For a circle of more than [`MOST_SEARCHED`]
/// they are few, and there may be fewer.
pub(crate) fn back_up<T: Ord + Clone>(arrows: &Arrows<T>) -> Vec<(T, T)> {
    let order = |circle: &Vec<T>| match circle.len() <= MOST_SEARCHED {
        true => best_order(circle, arrows),
        false => good_order(circle, arrows),
    };
    let orders: Vec<Vec<T>> = circles(arrows).iter().map(order).collect();
    let is_back = |(from, to): &&(T, T)| {
        let place = |order: &Vec<T>, one| order.iter().position(|other| other == one);
        orders.iter().any(|order| {
            place(order, from).zip(place(order, to)).is_some_and(|(from, to)| from < to)
        })
    };
    arrows.keys().filter(is_back).cloned().collect()
}

/// What is imported comes first. By sets: the best order of a set ends with one of its members, and
/// begins with the best order of the others.
fn best_order<T: Ord + Clone>(circle: &[T], arrows: &Arrows<T>) -> Vec<T> {
    let targets = targets(circle, arrows);
    // Of each set: the fewest arrows back, and who comes last.
    let mut best = vec![(u32::MAX, 0_usize); 1 << circle.len()];
    best[0].0 = 0;
    for set in 1..best.len() {
        for last in (0..circle.len()).filter(|last| set >> last & 1 == 1) {
            let others = set & !(1 << last);
            let sources = (0..circle.len()).filter(|one| others >> one & 1 == 1);
            let back = sources.filter(|one| targets[*one] >> last & 1 == 1).count() as u32;
            best[set] = best[set].min((best[others].0 + back, last));
        }
    }
    let (mut order, mut set) = (Vec::new(), best.len() - 1);
    while set != 0 {
        let last = best[set].1;
        order.push(circle[last].clone());
        set &= !(1 << last);
    }
    order.reverse();
    order
}

/// What imports least of those that are left comes first.
fn good_order<T: Ord + Clone>(circle: &[T], arrows: &Arrows<T>) -> Vec<T> {
    let mut left: Vec<&T> = circle.iter().collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let balance = |one: &&T| {
            let count = |is: &dyn Fn(&(T, T)) -> bool| arrows.keys().filter(|key| is(key)).count();
            let up = count(&|(from, to)| from == *one && left.contains(&to));
            (up, usize::MAX - count(&|(from, to)| to == *one && left.contains(&from)))
        };
        let least = (0..left.len()).min_by_key(|at| balance(&left[*at])).unwrap_or(0);
        order.push(left.remove(least).clone());
    }
    order
}

/// For each member the set of those that it imports.
fn targets<T: Ord + Clone>(circle: &[T], arrows: &Arrows<T>) -> Vec<usize> {
    let has = |from: &T, to: &T| arrows.contains_key(&(from.clone(), to.clone()));
    let bits =
        |from: &T| (0..circle.len()).filter(|to| has(from, &circle[*to])).map(|to| 1 << to).sum();
    circle.iter().map(bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(text: &str) -> Arrows<String> {
        let arrow = |word: &str| {
            let (from, to) = word.split_once('>').unwrap();
            ((from.to_owned(), to.to_owned()), BTreeSet::new())
        };
        text.split_whitespace().map(arrow).collect()
    }

    #[test]
    fn circles_are_found_and_trees_have_none() {
        assert!(circles(&arrows("a>b b>c a>c d>c")).is_empty());
        let found = circles(&arrows("a>b b>c c>a c>d d>e e>d e>f x>a"));
        assert_eq!(found, [vec!["a", "b", "c"], vec!["d", "e"]]);
    }

    #[test]
    fn the_fewest_arrows_are_taken_away() {
        for (text, expected) in [
            ("a>b b>c a>c", 0),
            ("a>b b>a", 1),
            ("a>b b>c c>a", 1),
            ("a>b a>c a>d b>a c>a d>a", 3),
            ("a>b b>c c>a c>d d>c", 2),
            // All import e but for one way back.
            ("a>e b>e c>e d>e e>a a>b b>c c>d", 1),
            ("a>b b>a c>d d>c", 2),
        ] {
            assert_eq!(back_up(&arrows(text)).len(), expected, "{text}");
        }
        let long: String = (0..30).map(|n| format!("n{n}>n{} ", (n + 1) % 30)).collect();
        assert_eq!(back_up(&arrows(&long)).len(), 1);
    }
}
