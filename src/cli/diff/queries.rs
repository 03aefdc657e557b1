//! The queries that moved most.

use std::fmt::Write as _;

use crate::cli::print::{self, Tone, paint};
use crate::run::{MovedQueries, MovedQuery, TopHit};

/// Characters of a line when nothing says how many fit.
pub(super) const USUAL_WIDTH: usize = 100;
/// A column at least so wide has a passage's id and text on one line.
const WIDE: usize = 72;
/// Characters of a passage in Markdown.
const EXCERPT: usize = 100;
const RELEVANT: &str = "✓";

/// For people: both rankings side by side, on lines of `width` characters.
pub(super) fn table(moved: &MovedQueries, width: usize, color: bool) -> String {
    let mut text = format!("{} → {}\n\n{}", moved.from, moved.to, summary(moved));
    if moved.queries.is_empty() {
        return text;
    }
    let marks = moved.queries.iter().flat_map(|q| q.from_hits.iter().chain(&q.to_hits)).any(|hit| hit.relevant == Some(true));
    let marks = if marks { format!("; {RELEVANT} is relevant") } else { String::new() };
    let _ = writeln!(text, "hits of the first run left, of the second right{marks}");
    for query in &moved.queries {
        text += "\n";
        text += &block(query, width, color);
    }
    text
}

fn summary(moved: &MovedQueries) -> String {
    let MovedQueries { stage, metric, better, same, worse, .. } = moved;
    let mut text = format!("`{stage}.{metric}`: {better} queries better, {same} the same, {worse} worse");
    match moved.queries.len() {
        0 => {}
        shown if shown < better + worse => text += &format!("; the {shown} that moved most"),
        _ => text += "; those that moved",
    }
    text += "\n";
    if !moved.also.is_empty() {
        let also: Vec<String> = moved.also.iter().map(|stage| format!("`{stage}`")).collect();
        text += &format!("queries moved in {} too; `--by STAGE.{metric}` shows them\n", also.join(", "));
    }
    text
}

fn block(query: &MovedQuery, width: usize, color: bool) -> String {
    let figures = format!("{:.4} → {:.4}  {:+.4}", query.from, query.to, query.difference);
    let tone = if query.difference < 0.0 { Tone::Bad } else { Tone::Good };
    let name = format!("{}  {}", query.id, one_line(query.text.as_deref().unwrap_or_default()));
    let mut text = paint(print::cut(&name, width).trim_end(), Tone::Bold, color);
    text += &format!("\n  {}{}\n", paint(&figures, tone, color), ranks(query));
    let rows = query.from_hits.len().max(query.to_hits.len());
    let digits = rows.to_string().len();
    let column = width.saturating_sub(4 + digits + 2).max(40) / 2;
    for rank in 0..rows {
        let sides =
            [&query.from_hits, &query.to_hits].map(|hits| hits.get(rank).map_or_else(Vec::new, |hit| lines(hit, column, color)));
        for line in 0..sides.iter().map(Vec::len).max().unwrap_or(0) {
            let number = if line == 0 { format!("{:>digits$}", rank + 1) } else { " ".repeat(digits) };
            let [left, right] = [0, 1].map(|side| sides.get(side).and_then(|s| s.get(line)).cloned().unwrap_or_default());
            let gap = " ".repeat(column.saturating_sub(print::width(&left)));
            text += format!("  {number}  {left}{gap}  {right}").trim_end();
            text += "\n";
        }
    }
    text
}

/// Where the first relevant passage stands in both rankings.
fn ranks(query: &MovedQuery) -> String {
    let rank = |rank: Option<usize>| rank.map_or_else(|| "none".to_owned(), |rank| rank.to_string());
    match (query.from_rank, query.to_rank) {
        (None, None) => String::new(),
        (from, to) => format!("   first relevant at {} → {}", rank(from), rank(to)),
    }
}

/// A hit in a column: its id and the beginning of its text, on one line or two.
fn lines(hit: &TopHit, column: usize, color: bool) -> Vec<String> {
    let mark = if hit.relevant == Some(true) { paint(RELEVANT, Tone::Good, color) } else { " ".to_owned() };
    let excerpt = one_line(hit.text.as_deref().unwrap_or_default());
    let inside = column.saturating_sub(2);
    let id = print::cut(&hit.passage, inside);
    if excerpt.is_empty() {
        return vec![format!("{mark} {id}")];
    }
    if column >= WIDE {
        let left = inside.saturating_sub(print::width(&id) + 2);
        return vec![format!("{mark} {id}  {}", paint(&print::cut(&excerpt, left), Tone::Dim, color))];
    }
    vec![format!("{mark} {id}"), format!("  {}", paint(&print::cut(&excerpt, inside), Tone::Dim, color))]
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn markdown(moved: &MovedQueries) -> String {
    let mut text = format!("`{}` → `{}`\n\n{}", moved.from, moved.to, summary(moved));
    let side = |hit: Option<&TopHit>| {
        let Some(hit) = hit else { return String::new() };
        let mark = if hit.relevant == Some(true) { "✓ " } else { "" };
        let excerpt = print::cut(&one_line(hit.text.as_deref().unwrap_or_default()), EXCERPT);
        format!("{mark}{} {}", literal(&hit.passage), literal(&excerpt)).trim_end().to_owned()
    };
    for query in &moved.queries {
        let name = one_line(query.text.as_deref().unwrap_or_default());
        let _ = write!(text, "\n### {} {}\n\n", literal(&query.id), literal(&name));
        let _ = writeln!(text, "{:.4} → {:.4} ({:+.4}){}\n", query.from, query.to, query.difference, ranks(query));
        let _ = write!(text, "| | {} | {} |\n|--:|---|---|\n", moved.from, moved.to);
        for rank in 0..query.from_hits.len().max(query.to_hits.len()) {
            let _ = writeln!(text, "| {} | {} | {} |", rank + 1, side(query.from_hits.get(rank)), side(query.to_hits.get(rank)));
        }
    }
    text
}

/// Text that Markdown shows as it is.
fn literal(text: &str) -> String {
    text.chars().flat_map(|c| "\\`*_|<[#".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A line a query and rank.
pub(super) fn csv(moved: &[MovedQueries]) -> String {
    let head = [
        "run",
        "metric",
        "query",
        "text",
        "from",
        "to",
        "difference",
        "rank",
        "from_passage",
        "from_relevant",
        "to_passage",
        "to_relevant",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for moved in moved {
        for query in &moved.queries {
            let hit = |hit: Option<&TopHit>| {
                let relevant = hit.and_then(|hit| hit.relevant).map(|relevant| relevant.to_string()).unwrap_or_default();
                [hit.map(|hit| hit.passage.clone()).unwrap_or_default(), relevant]
            };
            for rank in 0..query.from_hits.len().max(query.to_hits.len()).max(1) {
                let mut row = vec![moved.to.clone(), format!("{}.{}", moved.stage, moved.metric), query.id.clone()];
                row.push(query.text.clone().unwrap_or_default());
                row.extend([query.from, query.to, query.difference].map(|figure| figure.to_string()));
                row.push((rank + 1).to_string());
                row.extend([query.from_hits.get(rank), query.to_hits.get(rank)].map(hit).concat());
                rows.push(row);
            }
        }
    }
    print::csv(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved() -> MovedQueries {
        let hit = |passage: &str, relevant: bool, text: &str| TopHit {
            passage: passage.into(),
            score: 0.5,
            relevant: Some(relevant),
            text: Some(text.into()),
        };
        let layers =
            hit("docker/images-and-layers.md:3", false, "An image is a stack of layers, each the difference to the one below.");
        let volumes = hit("docker/volumes-and-data.md:1", true, "A volume keeps data\nwhen the container is removed | for good.");
        MovedQueries {
            from: "20261125-023543-tech-docs-2882".into(),
            to: "20261125-023035-tech-docs-ad74".into(),
            stage: "fine-tuned".into(),
            metric: "ndcg@10".into(),
            also: vec!["gain/after".into()],
            better: 2,
            same: 3,
            worse: 0,
            queries: vec![MovedQuery {
                id: "q17".into(),
                text: Some("how do I keep what a container wrote".into()),
                from: 0.5,
                to: 1.0,
                difference: 0.5,
                from_rank: Some(2),
                to_rank: Some(1),
                from_hits: vec![layers.clone(), volumes.clone()],
                to_hits: vec![volumes],
            }],
        }
    }

    #[test]
    fn two_rankings_side_by_side() {
        insta::assert_snapshot!(table(&moved(), 90, false), @"
        20261125-023543-tech-docs-2882 → 20261125-023035-tech-docs-ad74

        `fine-tuned.ndcg@10`: 2 queries better, 3 the same, 0 worse; the 1 that moved most
        queries moved in `gain/after` too; `--by STAGE.ndcg@10` shows them
        hits of the first run left, of the second right; ✓ is relevant

        q17  how do I keep what a container wrote
          0.5000 → 1.0000  +0.5000   first relevant at 2 → 1
          1    docker/images-and-layers.md:3            ✓ docker/volumes-and-data.md:1
               An image is a stack of layers, each th…    A volume keeps data when the container…
          2  ✓ docker/volumes-and-data.md:1
               A volume keeps data when the container…
        ");
        let wide = table(&moved(), 200, false);
        insta::assert_snapshot!(wide.lines().skip(4).collect::<Vec<_>>().join("\n"), @"
        hits of the first run left, of the second right; ✓ is relevant

        q17  how do I keep what a container wrote
          0.5000 → 1.0000  +0.5000   first relevant at 2 → 1
          1    docker/images-and-layers.md:3  An image is a stack of layers, each the difference to the one …  ✓ docker/volumes-and-data.md:1  A volume keeps data when the container is removed | for good.
          2  ✓ docker/volumes-and-data.md:1  A volume keeps data when the container is removed | for good.
        ");
        assert!(table(&moved(), 20, true).contains("docker/"), "a narrow terminal is no reason to break down");
        insta::assert_snapshot!(markdown(&moved()), @r#"
        `20261125-023543-tech-docs-2882` → `20261125-023035-tech-docs-ad74`

        `fine-tuned.ndcg@10`: 2 queries better, 3 the same, 0 worse; the 1 that moved most
        queries moved in `gain/after` too; `--by STAGE.ndcg@10` shows them

        ### q17 how do I keep what a container wrote

        0.5000 → 1.0000 (+0.5000)   first relevant at 2 → 1

        | | 20261125-023543-tech-docs-2882 | 20261125-023035-tech-docs-ad74 |
        |--:|---|---|
        | 1 | docker/images-and-layers.md:3 An image is a stack of layers, each the difference to the one below. | ✓ docker/volumes-and-data.md:1 A volume keeps data when the container is removed \| for good. |
        | 2 | ✓ docker/volumes-and-data.md:1 A volume keeps data when the container is removed \| for good. |  |
        "#);
        insta::assert_snapshot!(csv(&[moved()]), @"
        run,metric,query,text,from,to,difference,rank,from_passage,from_relevant,to_passage,to_relevant
        20261125-023035-tech-docs-ad74,fine-tuned.ndcg@10,q17,how do I keep what a container wrote,0.5,1,0.5,1,docker/images-and-layers.md:3,false,docker/volumes-and-data.md:1,true
        20261125-023035-tech-docs-ad74,fine-tuned.ndcg@10,q17,how do I keep what a container wrote,0.5,1,0.5,2,docker/volumes-and-data.md:1,true,,
        ");
    }
}
