//! That all ranks are about to compute the same: a rank with another file of settings, another program or other
//! images would make a run that is no run.

use crate::distributed::error::RanksError;
use crate::distributed::ranks::Ranks;

/// Compares what this rank has with rank 0's.
///
/// # Errors
/// A rank, the first by number, that has something else.
pub fn check(ranks: &mut Ranks, own: Vec<(&'static str, String)>) -> Result<(), RanksError> {
    let (names, values): (Vec<&str>, Vec<String>) = own.into_iter().unzip();
    let all = ranks.gather(values)?;
    let Some((first, others)) = all.split_first() else { return Ok(()) };
    for (rank, values) in others.iter().enumerate() {
        for ((what, expected), found) in names.iter().zip(first).zip(values) {
            if expected != found {
                let (expected, found) = first_difference(expected, found);
                return Err(RanksError::Different { rank: rank + 1, what, expected, found });
            }
        }
    }
    Ok(())
}

/// The first lines in which two texts differ.
fn first_difference(expected: &str, found: &str) -> (String, String) {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    loop {
        let pair = (expected.next(), found.next());
        if pair.0 != pair.1 || pair.0.is_none() {
            let shown = |line: Option<&str>| format!("`{}`", line.unwrap_or_default());
            return (shown(pair.0), shown(pair.1));
        }
    }
}

#[cfg(test)]
mod tests {
    use bninception_collective::Threads;

    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        for (a, b, expected) in [
            ("a\nb\nc", "a\nx\nc", ("`b`", "`x`")),
            ("a", "a\nb", ("``", "`b`")),
            ("a", "a", ("``", "``")),
        ] {
            assert_eq!(first_difference(a, b), (expected.0.to_owned(), expected.1.to_owned()));
        }
    }

    #[test]
    fn all_ranks_refuse_the_one_that_differs() {
        let run = |threads: Threads| {
            let mut ranks = Ranks::of(Box::new(threads));
            let seed = if ranks.share().rank == 2 { "seed = 8" } else { "seed = 7" };
            check(&mut ranks, vec![("settings", format!("a = 1\n{seed}"))]).unwrap_err().to_string()
        };
        let running: Vec<_> = Threads::group(3)
            .into_iter()
            .map(|rank| std::thread::spawn(move || run(rank)))
            .collect();
        for rank in running {
            let said = rank.join().unwrap();
            let expected =
                "rank 2 has other settings than rank 0: `seed = 8` in place of `seed = 7`";
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
