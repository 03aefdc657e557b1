//! A pipeline's stages and what feeds them, with what a run would do: as text, for Graphviz, for Mermaid, for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::plan::{tone, why};
use super::print::{self, paint};
use crate::engine::{Planned, Verdict};
use crate::pipeline::Pipeline;

/// With more lines side by side, nobody follows them.
const MOST_LANES: usize = 16;
/// Columns of the drawing.
const WIDTH: usize = 100;
/// Between the lines and the names, where the lines are too many: levels of indentation.
const DEEPEST: usize = 12;

/// An edge for programs.
#[derive(Serialize)]
pub(super) struct Drawn<'a> {
    from: &'a str,
    output: &'a str,
    to: &'a str,
    port: &'a str,
}

/// Every edge, in the order of the stages that they feed.
pub(super) fn edges(pipeline: &Pipeline) -> Vec<Drawn<'_>> {
    let of_stage = |node| {
        let node: &crate::pipeline::Node = node;
        let from = |edge: &crate::pipeline::Edge| pipeline.stages.get(edge.from).map_or("", |from| from.id.as_str());
        node.inputs.iter().map(move |edge| Drawn { from: from(edge), output: &edge.output, to: &node.id, port: &edge.port })
    };
    pipeline.stages.iter().flat_map(of_stage).collect()
}

/// The stages from top to bottom, beside lines from each to those that it feeds. Where the lines would be too many, the stages are indented
/// by how many come before them, and name what feeds them.
pub(super) fn text(pipeline: &Pipeline, planned: &[Planned], color: bool) -> String {
    let sources: Vec<Vec<usize>> = pipeline.stages.iter().map(|node| unique(node.inputs.iter().map(|e| e.from))).collect();
    let drawn = lanes(&sources);
    let depths = depths(&sources);
    let row = |(index, planned): (usize, &Planned)| {
        let verdict = paint(planned.verdict.name(), tone(planned.verdict), color);
        match &drawn {
            Some(rows) => vec![format!("{} {}", rows[index], planned.stage), verdict, why(planned)],
            None => {
                let names: Vec<&str> = sources[index].iter().map(|&from| planned_name(pipeline, from)).collect();
                let feeds = if names.is_empty() { String::new() } else { format!(" ← {}", names.join(", ")) };
                vec![format!("{}{}{feeds}", "  ".repeat(depths[index].min(DEEPEST)), planned.stage), verdict, why(planned)]
            }
        }
    };
    let lines = print::columns(&planned.iter().enumerate().map(row).collect::<Vec<_>>());
    lines.lines().map(|line| console::truncate_str(line, WIDTH, "…").into_owned() + "\n").collect()
}

fn planned_name(pipeline: &Pipeline, index: usize) -> &str {
    pipeline.stages.get(index).map_or("", |node| node.id.as_str())
}

fn unique(indices: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut indices: Vec<usize> = indices.collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// How many stages come before each on the longest way.
fn depths(sources: &[Vec<usize>]) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::new();
    for sources in sources {
        depths.push(sources.iter().map(|&from| depths[from] + 1).max().unwrap_or(0));
    }
    depths
}

/// For each stage the lines beside it: `●` is the stage, below it hangs a line as long as there are stages that it feeds. `None` when there
/// would be too many side by side. `sources` holds the stages that feed each, which come before it.
fn lanes(sources: &[Vec<usize>]) -> Option<Vec<String>> {
    let mut left = vec![0; sources.len()];
    sources.iter().flatten().for_each(|&from| left[from] += 1);
    // By column: the stage whose line is there.
    let mut lanes: Vec<Option<usize>> = Vec::new();
    // A stage right below another one would seem to be fed by it.
    let mut above = None;
    let mut rows = Vec::new();
    for (index, sources) in sources.iter().enumerate() {
        let mut from: Vec<usize> = Vec::new();
        for &source in sources {
            from.extend(lanes.iter().position(|lane| *lane == Some(source)));
            left[source] -= 1;
        }
        let ends = |column: usize| lanes[column].is_some_and(|source| left[source] == 0);
        let ending = from.iter().copied().filter(|&column| ends(column)).min();
        let free = (0..lanes.len()).find(|&column| lanes[column].is_none() && above != Some(column));
        let beyond = if above == Some(lanes.len()) { lanes.len() + 1 } else { lanes.len() };
        let own = ending.or(free).unwrap_or(beyond);
        if lanes.len() <= own {
            lanes.resize(own + 1, None);
        }
        if lanes.len() > MOST_LANES {
            return None;
        }
        rows.push(row(&lanes, &left, &from, own));
        for &column in &from {
            if lanes[column].is_some_and(|source| left[source] == 0) {
                lanes[column] = None;
            }
        }
        lanes[own] = Some(index).filter(|_| left[index] > 0);
        above = Some(own).filter(|_| lanes[own].is_none());
        while lanes.last() == Some(&None) {
            lanes.pop();
        }
    }
    let width = rows.iter().map(|row| row.chars().count()).max().unwrap_or(0);
    Some(rows.into_iter().map(|row| format!("{row}{}", " ".repeat(width - row.chars().count()))).collect())
}

/// The lines beside a stage in column `own` that those in the columns `from` feed.
fn row(lanes: &[Option<usize>], left: &[usize], from: &[usize], own: usize) -> String {
    let first = from.iter().copied().chain([own]).min().unwrap_or(own);
    let last = from.iter().copied().chain([own]).max().unwrap_or(own);
    let mut row = String::new();
    for (column, lane) in lanes.iter().enumerate() {
        let ends = lane.is_some_and(|source| left[source] == 0);
        let inside = first < column && column < last;
        row.push(match () {
            () if column == own => '●',
            () if from.contains(&column) => match (ends, column == first, column == last) {
                (false, true, _) => '├',
                (false, _, true) => '┤',
                (false, ..) => '┼',
                (true, true, _) => '╰',
                (true, _, true) => '╯',
                (true, ..) => '┴',
            },
            () if lane.is_some() => '│',
            () if inside => '─',
            () => ' ',
        });
        row.push(if first <= column && column < last { '─' } else { ' ' });
    }
    row.trim_end().to_owned()
}

/// For Graphviz: `retune plan PIPELINE --graph=dot | dot -Tsvg`.
pub(super) fn dot(pipeline: &Pipeline, planned: &[Planned]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("digraph {} {{\n", quoted(&pipeline.name));
    text += "  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n";
    text += "  edge [fontname=\"sans-serif\", fontsize=10];\n";
    for stage in planned {
        let (fill, line) = colors(stage.verdict);
        let label = quoted(&format!("{}\n{}, {}", stage.stage, stage.uses, stage.verdict.name())).replace('\n', "\\n");
        let _ = writeln!(text, "  {} [label={label}, fillcolor=\"{fill}\", color=\"{line}\"];", quoted(&stage.stage));
    }
    for edge in edges(pipeline) {
        let _ = writeln!(text, "  {} -> {} [label={}];", quoted(edge.from), quoted(edge.to), quoted(edge.port));
    }
    text + "}\n"
}

/// For Mermaid, which renders in Markdown on code hosts.
pub(super) fn mermaid(pipeline: &Pipeline, planned: &[Planned]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;"));
    let mut text = String::from("flowchart TB\n");
    for (index, stage) in planned.iter().enumerate() {
        let label = format!("{}\n{}, {}", stage.stage, stage.uses, stage.verdict.name());
        let _ = writeln!(text, "  s{index}({}):::{}", quoted(&label).replace('\n', "<br/>"), stage.verdict.name());
    }
    for (index, node) in pipeline.stages.iter().enumerate() {
        for edge in &node.inputs {
            let _ = writeln!(text, "  s{} -->|{}| s{index}", edge.from, quoted(&edge.port));
        }
    }
    for verdict in [Verdict::Cached, Verdict::Runs, Verdict::Depends, Verdict::Frozen, Verdict::Skipped] {
        if planned.iter().any(|stage| stage.verdict == verdict) {
            let (fill, line) = colors(verdict);
            let _ = writeln!(text, "  classDef {} fill:{fill},stroke:{line},color:#222222", verdict.name());
        }
    }
    text
}

/// Fill and outline of a stage.
fn colors(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Cached => ("#eeeeee", "#999999"),
        Verdict::Runs => ("#cfe8cf", "#2e7d32"),
        Verdict::Depends => ("#fff3c4", "#b28900"),
        Verdict::Frozen => ("#d6e6f5", "#1565c0"),
        Verdict::Skipped => ("#ffffff", "#cccccc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sources: &[&[usize]]) -> String {
        let sources: Vec<Vec<usize>> = sources.iter().map(|from| from.to_vec()).collect();
        let rows = lanes(&sources).unwrap();
        rows.iter().enumerate().map(|(index, row)| format!("{row} {index}\n")).collect()
    }

    #[test]
    fn lines_lead_to_what_a_stage_feeds() {
        // A chain; two that share a source and meet again; a stage that nothing feeds; a line that passes another one.
        insta::assert_snapshot!(drawn(&[&[], &[0], &[1], &[1], &[2, 3], &[], &[1, 5], &[4, 6]]), @"
        ●     0
        ●     1
        ├─●   2
        ├─│─● 3
        │ ●─╯ 4
        │ │ ● 5
        ●─│─╯ 6
        ●─╯   7
        ");
        // Two that have nothing to do with each other do not stand in one line.
        insta::assert_snapshot!(drawn(&[&[], &[], &[]]), @"
        ●   0
          ● 1
        ●   2
        ");
    }

    #[test]
    fn too_many_lines_are_not_drawn() {
        let fan: Vec<Vec<usize>> = (0..80)
            .map(|i| {
                if i == 0 {
                    vec![]
                } else if i < 40 {
                    vec![0]
                } else {
                    vec![i - 39]
                }
            })
            .collect();
        assert_eq!(lanes(&fan), None);
    }
}
