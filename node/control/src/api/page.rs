//! The status page: three files that a browser gets, and which then ask the API with the token.
//! Nothing in them comes from anywhere else, so that it works without the internet.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// Only what this node sends, and asks of this node; never within another page. Whatever a
/// session's name contains, nothing of it is run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: (&str, &str) = ("text/html; charset=utf-8", include_str!("page/index.html"));
const STYLE: (&str, &str) = ("text/css; charset=utf-8", weir_page::STYLE);
const SCRIPT: (&str, &str) = ("text/javascript; charset=utf-8", include_str!("page/page.js"));

/// Serves the page's files without authentication.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || file(HTML)))
        .route("/page.css", get(async || file(STYLE)))
        .route("/page.js", get(async || file(SCRIPT)))
}

fn file((kind, text): (&'static str, &'static str)) -> impl IntoResponse {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of weir may answer the next time.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (HEADERS, [(header::CONTENT_TYPE, kind)], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_else_and_has_no_code_that_the_policy_forbids() {
        for (_, text) in [HTML, STYLE, SCRIPT] {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http:", "https:", "//cdn", "@import", "url(", "import ", "eval("] {
                assert!(!text.contains(foreign), "{foreign}");
            }
        }
        for inline in [" style=", " onclick=", " onload=", "<style", "<script>"] {
            assert!(!HTML.1.contains(inline), "{inline}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
            assert!(!SCRIPT.1.contains(markup), "{markup}");
        }
    }
}
