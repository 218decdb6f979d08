//! Pages for a browser: one file each, with its style, its scripts and its data inside, so that it needs no
//! network. `report` writes such a page, and `dashboard` serves one.

pub mod charts;
pub mod commands;
pub mod thin;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

const UPLOT_JS: &str = include_str!("assets/uplot.min.js");
const UPLOT_CSS: &str = include_str!("assets/uplot.min.css");
const STYLE: &str = include_str!("assets/style.css");
/// Draws charts, on uPlot.
pub const CHARTS_JS: &str = include_str!("assets/charts.js");
/// Lets tables be sorted and filtered.
pub const TABLES_JS: &str = include_str!("assets/tables.js");

/// A page.
pub struct Document<'a> {
    /// Stands in the window's title.
    pub title: &'a str,
    /// What is shown.
    pub body: Markup,
    /// What scripts read, by the id of its element.
    pub data: &'a [(&'a str, Value)],
    /// Scripts, run in their order behind uPlot. They must not contain `</script`.
    pub scripts: &'a [&'a str],
    /// Whether scripts may ask the server that the page came from.
    pub connects: bool,
}

impl Document<'_> {
    /// The text of the page.
    pub fn to_html(&self) -> String {
        // Scripts and styles of the page itself, pictures in it, and nothing from elsewhere.
        let policy = format!(
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
             connect-src {}; base-uri 'none'; form-action 'none'",
            if self.connects { "'self'" } else { "'none'" }
        );
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="generator" content={ "bninception " (env!("CARGO_PKG_VERSION")) };
                    // An empty icon, or browsers ask the server for one.
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(UPLOT_CSS)) (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#main" { "To the content" }
                    (self.body)
                    @for (id, value) in self.data {
                        script type="application/json" id=(id) { (PreEscaped(inline_json(value))) }
                    }
                    script { (PreEscaped(UPLOT_JS)) }
                    @for script in self.scripts {
                        script { (PreEscaped(script)) }
                    }
                }
            }
        };
        page.into_string()
    }
}

/// JSON for the inside of a script element, which would end at `</script`.
fn inline_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_data_ends_a_script() {
        let data = json!({ "name": "</script><script>alert(1)</script><!--" });
        let text = inline_json(&data);
        assert!(!text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), data);
    }

    #[test]
    fn scripts_can_stand_in_a_page() {
        for script in [UPLOT_JS, CHARTS_JS, TABLES_JS] {
            assert!(!script.contains("</script") && !script.contains("<!--"));
        }
        for style in [UPLOT_CSS, STYLE] {
            assert!(
                !style.contains("</style") && !style.contains("@import") && !style.contains("url(")
            );
        }
    }

    #[test]
    fn a_page_has_its_parts_and_asks_nobody() {
        let page = |connects| {
            let data = [("charts", json!([1]))];
            let body = html! { main #main { h1 { "a < b" } } };
            Document { title: "a < b", body, data: &data, scripts: &[TABLES_JS], connects }
                .to_html()
        };
        let text = page(false);
        assert!(text.starts_with("<!DOCTYPE html>") && text.contains("<title>a &lt; b</title>"));
        assert!(text.contains("connect-src 'none'") && page(true).contains("connect-src 'self'"));
        assert!(text.contains(r#"<script type="application/json" id="charts">[1]</script>"#));
        assert!(!text.contains("src=\"http") && !text.contains("href=\"http"));
    }
}
