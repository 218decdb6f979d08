//! The document: a list of runs with their curves, and the view of one run. A script fills it.

use std::path::Path;

use maud::{Markup, html};
use serde_json::json;

use crate::dashboard::curves::MOST_RUNS;
use crate::page::{CHARTS_JS, Document, TABLES_JS};
use crate::terminal::text::quoted;

const DASHBOARD_JS: &str = include_str!("assets/dashboard.js");

/// Columns of the list: how each is called in the row's JSON, its head, and whether it holds numbers.
const COLUMNS: [(&str, &str, bool); 11] = [
    ("run", "run", false),
    ("state", "state", false),
    ("epoch", "epoch", true),
    ("best_top1", "best top-1", true),
    ("loss", "loss", true),
    ("ends_at", "ends", true),
    ("images_per_second", "images/s", true),
    ("preset", "preset", false),
    ("started", "started", true),
    ("updated", "updated", true),
    ("bytes", "size", true),
];

/// The text of the page for the runs in `dir`.
pub fn document(dir: &Path) -> String {
    let name = dir.display().to_string();
    let about = json!({ "dir": name, "most_runs": MOST_RUNS });
    Document {
        title: &format!("{name}: runs"),
        body: body(dir),
        data: &[("about", about)],
        scripts: &[CHARTS_JS, TABLES_JS, DASHBOARD_JS],
        connects: true,
    }
    .to_html()
}

fn body(dir: &Path) -> Markup {
    html! {
        header.page {
            h1 { "Runs in " (dir.display()) }
            p.hint {
                span #state { "asking for the runs" }
                " " span #news role="status" {}
            }
            noscript { p.notice { "This page needs JavaScript, which it brings along." } }
        }
        main #main {
            div #notes {}
            div #list-view {
                (list(dir))
                section #curves hidden {
                    h2 { "Curves of the runs with a tick" }
                    div #reasons {}
                    div #list-charts {}
                }
            }
            (run_view())
        }
        footer { "bninception " (env!("CARGO_PKG_VERSION")) ". This page reads the folder and changes nothing." }
    }
}

fn list(dir: &Path) -> Markup {
    let command = format!("bninception train --run-dir {}", quoted(&dir.join("NAME")));
    html! {
        section #list aria-label="Runs" {
            div #empty hidden {
                p { "There is no run in this folder yet. This begins one, which then appears here:" }
                pre.commands { (command) }
            }
            div #table hidden {
                div.toolbar {
                    label { "filter" input #filter type="search" autocomplete="off"; }
                    output for="filter" {}
                    button #clear type="button" hidden { "Untick all" }
                }
                div.scroll tabindex="0" role="region" aria-label="List of runs" {
                    table.sortable #runs data-filter="filter" {
                        thead {
                            tr {
                                th.fixed { span.unseen { "draw" } }
                                @for (key, head, is_number) in COLUMNS {
                                    th.number[is_number] scope="col" data-key=(key) { (head) }
                                }
                            }
                        }
                        tbody {}
                    }
                }
                p.hint { "A tick draws the curves of a run, side by side with others. Its name opens it." }
            }
        }
    }
}

fn run_view() -> Markup {
    html! {
        div #run-view hidden {
            section {
                p { a #back href="#" { "← all runs" } }
                h2 #run-name tabindex="-1" {}
                div #run-notes {}
                dl.numbers #run-numbers {}
            }
            section {
                h2 { "Curves" }
                p.hint #no-curves { "Nothing is recorded yet." }
                div #run-charts {}
            }
            section {
                h2 { "Log" }
                pre.log #log tabindex="0" role="log" aria-live="off" aria-label="The run's log" {}
            }
            section {
                h2 { "Settings" }
                div #run-settings {}
            }
            section {
                h2 { "Commands" }
                pre.commands #run-commands {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::row::Row;

    #[test]
    fn columns_are_keys_of_a_row() {
        let row = serde_json::to_value(Row::default()).unwrap();
        for (key, ..) in COLUMNS {
            assert!(row.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_page_names_its_folder_and_runs_no_text_as_a_script() {
        let text = document(Path::new("a<b>"));
        assert!(text.contains("<title>a&lt;b&gt;: runs</title>"));
        assert!(
            text.contains("bninception train --run-dir &#39;a&lt;b&gt;/NAME&#39;")
                || text.contains("'a&lt;b&gt;/NAME'")
        );
        assert!(text.contains("connect-src 'self'"));
        for forbidden in ["innerHTML", "eval(", "outerHTML", "document.write", "insertAdjacentHTML"]
        {
            assert!(!DASHBOARD_JS.contains(forbidden), "{forbidden}");
        }
        assert!(!DASHBOARD_JS.contains("</script") && DASHBOARD_JS.lines().count() <= 400);
    }
}
