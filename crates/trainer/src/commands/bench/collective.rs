//! `bench collective`.

use bninception_collective::bench::{Call, Measured, measure};
use bninception_collective::{Collective, CollectiveError};
use serde_json::json;

use crate::cli::BenchCollectiveArgs;
use crate::commands::print;
use crate::distributed::Ranks;
use crate::distributed::error::RanksError;
use crate::error::Error;
use crate::terminal::text::table;

pub(super) fn bench(args: &BenchCollectiveArgs, ranks: &mut Ranks) -> Result<(), Error> {
    if !ranks.are_many() {
        return Err(Error::Usage(
            "one process alone has nobody to tell anything, and there is nothing to measure; start it in \
             several with: bninception launch -n 2 -- bench collective"
                .to_owned(),
        ));
    }
    let rows = measure_all(ranks.collective(), args).map_err(RanksError::from)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let connection = ranks.describe();
    if args.json {
        let rows: Vec<_> = rows.iter().map(to_json).collect();
        return print::json(&json!({
            "ranks": ranks.share().ranks,
            "connected_by": connection,
            "repeats": args.repeats,
            "calls": rows,
        }));
    }
    print::text(&to_text(&rows))?;
    print::text(&format!(
        "{connection}\nmedians of {}, of the slowest rank each; every answer checked. A gather's size is what each \
         rank ends up with. Bus: bytes that each rank sends a second, 2 (N - 1) / N of the size for a sum",
        args.repeats
    ))
}

fn measure_all(
    ranks: &mut dyn Collective,
    args: &BenchCollectiveArgs,
) -> Result<Vec<Measured>, CollectiveError> {
    let mut rows = Vec::new();
    for call in [Call::Sum, Call::Broadcast, Call::Gather] {
        for &bytes in &args.sizes {
            rows.push(measure(ranks, call, bytes, args.repeats)?);
        }
    }
    rows.push(measure(ranks, Call::Barrier, 0, args.repeats)?);
    Ok(rows)
}

fn to_json(row: &Measured) -> serde_json::Value {
    json!({
        "call": row.call.name(),
        "bytes": row.bytes,
        "seconds_median": row.median(),
        "seconds_min": row.least(),
        "algorithm_bytes_per_second": row.algorithm_bandwidth(),
        "bus_bytes_per_second": row.bus_bandwidth(),
    })
}

fn to_text(rows: &[Measured]) -> String {
    let header = ["call", "size", "median ms", "min ms", "algorithm GB/s", "bus GB/s"];
    let cells = rows.iter().map(|row| {
        let rate = |bytes: f64| match row.call {
            Call::Barrier => String::new(),
            _ => format!("{:.2}", bytes / 1e9),
        };
        vec![
            row.call.name().to_owned(),
            size(row.bytes),
            format!("{:.3}", 1e3 * row.median()),
            format!("{:.3}", 1e3 * row.least()),
            rate(row.algorithm_bandwidth()),
            rate(row.bus_bandwidth()),
        ]
    });
    table(&header, &cells.collect::<Vec<_>>())
}

/// Bytes in the unit in which they are a short number.
fn size(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        1..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes as f64 / 1e3),
        _ => format!("{} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, ""), (4, "4 B"), (4096, "4.096 kB"), (45_000_000, "45 MB"), (1_500_000, "1.5 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
