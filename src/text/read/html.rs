//! HTML: the text that a reader of the page sees.

use anyhow::Result;
use scraper::{ElementRef, Html, Selector};

use super::{Record, Source};
use crate::text::is_space;

/// Elements whose text is no content.
const NOISE: &[&str] = &["head", "script", "style", "noscript", "template", "svg", "iframe", "nav"];

/// Elements that are content inside an article and page furniture outside of one.
const FURNITURE: &[&str] = &["header", "footer"];

/// Elements before and after which a line ends.
const LINES: &[&str] = &["br", "li", "tr", "dt", "dd", "div", "option", "caption", "figcaption", "summary"];

/// Elements before and after which there is a blank line.
const PARAGRAPHS: &[&str] = &[
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "dl",
    "table",
    "pre",
    "blockquote",
    "section",
    "article",
    "main",
    "aside",
    "figure",
    "form",
    "hr",
    "header",
    "footer",
    "details",
    "address",
];

/// One document; the title is `<title>`, else the first `<h1>`.
pub fn read(source: &Source) -> Result<Vec<Record>> {
    let page = Html::parse_document(&source.text()?);
    let title = ["title", "h1"].into_iter().find_map(|name| first(&page, name));
    Ok(vec![Record { title, text: text(&page), ..Record::default() }])
}

fn first(page: &Html, name: &str) -> Option<String> {
    let element = page.select(&Selector::parse(name).ok()?).next()?;
    Some(element.text().collect::<String>()).filter(|text| !text.trim().is_empty())
}

/// Walks the tree without recursion: a page may nest deeper than the stack.
fn text(page: &Html) -> String {
    let mut text = Text::default();
    let mut node = page.tree.root();
    // How many open elements are articles, and how many keep white space.
    let (mut articles, mut kept) = (0usize, 0usize);
    loop {
        let name = ElementRef::wrap(node).map(|element| element.value().name()).unwrap_or_default();
        if let Some(words) = node.value().as_text() {
            text.push(words, kept > 0);
        }
        let skipped = NOISE.contains(&name) || articles == 0 && FURNITURE.contains(&name);
        text.end(breaks(name));
        if let Some(child) = node.first_child().filter(|_| !skipped) {
            articles += usize::from(matches!(name, "article" | "main"));
            kept += usize::from(name == "pre");
            node = child;
            continue;
        }
        loop {
            if let Some(next) = node.next_sibling() {
                node = next;
                break;
            }
            let Some(parent) = node.parent() else { return text.finished };
            let name = ElementRef::wrap(parent).map(|element| element.value().name()).unwrap_or_default();
            articles -= usize::from(matches!(name, "article" | "main"));
            kept -= usize::from(name == "pre");
            text.end(breaks(name));
            node = parent;
        }
    }
}

/// Line breaks around an element.
fn breaks(name: &str) -> usize {
    match name {
        _ if PARAGRAPHS.contains(&name) => 2,
        _ if LINES.contains(&name) => 1,
        _ => 0,
    }
}

/// Text that grows, with white space held back until a word follows.
#[derive(Default)]
struct Text {
    finished: String,
    breaks: usize,
    blank: bool,
}

impl Text {
    fn end(&mut self, breaks: usize) {
        self.breaks = self.breaks.max(breaks);
    }

    fn push(&mut self, words: &str, keep: bool) {
        if keep {
            self.separate();
            self.finished.push_str(words);
            return;
        }
        for c in words.chars() {
            if is_space(c) {
                self.blank = true;
            } else {
                self.separate();
                self.finished.push(c);
            }
        }
    }

    fn separate(&mut self) {
        if !self.finished.is_empty() {
            if self.breaks > 0 {
                self.finished.truncate(self.finished.trim_end().len());
                self.finished.extend(std::iter::repeat_n('\n', self.breaks));
            } else if self.blank {
                self.finished.push(' ');
            }
        }
        (self.breaks, self.blank) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::read::Fields;

    fn one(text: &str) -> Record {
        let records = read(&Source { bytes: text.as_bytes(), fields: &Fields::default() }).unwrap();
        records.into_iter().next().unwrap()
    }

    #[test]
    fn the_text_is_what_a_reader_sees() {
        let record = one("<!doctype html><html><head><title>A &amp;  B</title><style>p{}</style></head><body>\
             <header>Site</header><nav><a>Home</a></nav><main><header><h1>Head</h1></header>\
             <p>First <b>bold</b>text\n  goes on.<br>New line</p><script>var x;</script>\
             <ul><li>one</li><li>two</li></ul><pre>a\n  b</pre>\
             <table><tr><td>x </td><td>y</td></tr><tr><td>z</td></tr></table></main><footer>© Us</footer></body></html>");
        assert_eq!(record.title.as_deref(), Some("A &  B"));
        insta::assert_snapshot!(record.text, @"
        Head

        First boldtext goes on.
        New line

        one
        two

        a
          b

        x y
        z
        ");
    }

    #[test]
    fn the_first_heading_stands_in_for_the_title() {
        assert_eq!(one("<title> </title><h2>x</h2><h1>The <i>page</i></h1>").title.as_deref(), Some("The page"));
        assert_eq!(one("just text"), Record { text: "just text".into(), ..Record::default() });
    }

    #[test]
    fn deep_pages_do_not_exhaust_the_stack() {
        let text = one(&("<div><b>".repeat(20_000) + "deep")).text;
        assert_eq!(text, "deep");
    }
}
