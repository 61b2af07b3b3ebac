//! What weir's pages have in common: the node's page, the page inside the tunnel, and a registry's.

/// The style of all pages.
pub const STYLE: &str = include_str!("page.css");

/// A text as HTML shows it, in elements and in quoted attributes. It has no `{` either, which begins
/// what a page's template replaces.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '{' => escaped.push_str("&#123;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_in_html_or_a_template_stays() {
        let escaped = escape("<a title='x' href=\"y\">{state} & é</a>");
        let expected =
            "&lt;a title=&#39;x&#39; href=&quot;y&quot;&gt;&#123;state} &amp; é&lt;/a&gt;";
        assert_eq!(escaped, expected);
    }
}
