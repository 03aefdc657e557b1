//! Every stage once for each combination of its axes: those of its own matrix, those of the pipeline's that it refers to, and those of the
//! stages that feed it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use super::combination::{self, Row, Table};
use super::configure::{Parameters, configure};
use super::document::{Document, LONGEST_ID, MOST_STAGES};
use super::expand::{Body, Expanded, Member};
use super::graph::{Feed, Origin};
use super::interpolate::{Budget, Combination, Interpolator, Names, axes_of};
use super::paths::Paths;
use super::problem::{Problem, Problems, Span};
use super::selector::{self, Labels, Selection};
use super::yaml::Entry;
use super::{label, matrix, order};
use crate::stage::Configured;

/// Inputs of all stages together.
const MOST_EDGES: usize = 200_000;

/// A stage in one of its combinations.
pub(super) struct Instance<'a> {
    /// The number of its member.
    pub member: usize,
    /// The name of the node: `OUTER[…]/INNER[…]`.
    pub id: String,
    pub description: Option<String>,
    /// Nothing if it is no node, or after a problem.
    pub configured: Option<Configured>,
    /// In the order of the ports.
    pub inputs: Vec<Input<'a>>,
    row: Row,
    /// If it stands for a definition: what `${params.…}` refers to there.
    params: Option<Rc<Vec<Entry>>>,
}

/// What feeds an input of an instance.
#[derive(Clone)]
pub(super) struct Input<'a> {
    pub port: &'a str,
    /// For a port that takes many.
    pub label: Option<Rc<str>>,
    /// The number of an instance that is a node.
    pub from: usize,
    pub output: &'a str,
}

/// Makes the instances of all stages; they are complete if there were no problems.
pub(super) fn fan_out<'a>(
    document: &'a Document<'a>,
    expanded: &'a Expanded<'a>,
    feeds: &'a [Vec<Feed<'a>>],
    names: Names<'a>,
    budget: &'a mut Budget,
    paths: Paths<'a>,
    problems: &mut Problems,
) -> Vec<Instance<'a>> {
    let is_unsure = !problems.is_empty();
    let mut fan = FanOut {
        expanded,
        feeds,
        names,
        budget,
        paths,
        axes: expanded.members.iter().map(referred).collect(),
        pipeline: Rc::default(),
        projections: HashMap::new(),
        sources: HashMap::new(),
        is_unsure,
        instances: Vec::new(),
        batches: Vec::new(),
        placed: HashMap::new(),
        edges: 0,
    };
    fan.read_matrix(document, problems);
    let order = fan.orders(document, problems);
    fan.scope(0, None, &order, problems);
    if problems.is_empty() {
        fan.connect(problems);
    }
    problems.within(&[]);
    fan.instances
}

/// The axes that a stage refers to.
fn referred(member: &Member) -> BTreeSet<String> {
    let mut axes = BTreeSet::new();
    if let Some((_, with)) = member.stage.with {
        axes_of(with, &mut axes);
    }
    axes
}

/// The instances of one stage; within a definition, those that one instance of its user has.
struct Batch {
    member: usize,
    outer: Option<usize>,
    axes: Vec<Rc<str>>,
    instances: Range<usize>,
}

struct FanOut<'a> {
    expanded: &'a Expanded<'a>,
    /// By member.
    feeds: &'a [Vec<Feed<'a>>],
    /// What references can name in the pipeline.
    names: Names<'a>,
    budget: &'a mut Budget,
    paths: Paths<'a>,
    /// By member, the axes that its `with` refers to.
    axes: Vec<BTreeSet<String>>,
    /// The pipeline's own matrix.
    pipeline: Rc<Table>,
    /// What it is on some of its axes.
    projections: HashMap<Vec<Rc<str>>, Rc<Table>>,
    /// What a member, by way of a node, yields below an instance of its user.
    sources: HashMap<(usize, usize, Option<usize>), Rc<Source>>,
    /// Axes may be missing on account of problems that are known.
    is_unsure: bool,
    instances: Vec<Instance<'a>>,
    batches: Vec<Batch>,
    /// The batch of a member below an instance of its user.
    placed: HashMap<(usize, Option<usize>), usize>,
    edges: usize,
}

/// The combinations in which a stage yields something, and the instance of each.
struct Source {
    table: Table,
    labels: Labels,
    instances: Vec<usize>,
}

/// Those of them that an input means.
struct Yielded {
    source: Rc<Source>,
    selection: Selection,
}

impl Yielded {
    /// The axes that whoever takes the input has as well, and the combinations of them.
    fn inherited(&self) -> Table {
        let table = &self.source.table;
        let axis = |column: &usize| table.axes.get(*column).cloned();
        let axes: Vec<Rc<str>> = self.selection.inherited.iter().filter_map(axis).collect();
        let row = |row: &usize| table.rows.get(*row).cloned();
        let rows = self.selection.rows.iter().filter_map(row).collect();
        Table { axes: table.axes.clone(), rows }.project(&axes)
    }
}

impl<'a> FanOut<'a> {
    fn read_matrix(&mut self, document: &Document, problems: &mut Problems) {
        let Some(entry) = document.matrix else { return };
        let read = matrix::read(entry, &mut Interpolator::new(self.names, self.budget), problems);
        self.is_unsure |= read.is_none();
        let Some(table) = read else { return };
        let stages = self.expanded.members.iter().zip(&self.axes).filter(|(member, _)| member.scope == 0);
        let used: HashSet<&str> = stages.flat_map(|(_, axes)| axes).map(String::as_str).collect();
        for axis in table.axes.iter().filter(|axis| !used.contains(&***axis)) {
            let help = format!("use `${{matrix.{axis}}}` in the `with` of a stage, or remove the axis");
            let message = format!("no stage refers to `${{matrix.{axis}}}`");
            problems.push(Problem::at(matrix::place(entry, axis), message).help(help));
        }
        self.pipeline = Rc::new(table);
    }

    /// By scope, its members in an order in which what feeds a stage comes before it.
    fn orders(&self, document: &Document, problems: &mut Problems) -> Vec<Vec<usize>> {
        let has_matrix = document.matrix.is_some() || self.expanded.members.iter().any(|m| m.stage.matrix.is_some());
        let mut orders = Vec::new();
        for scope in &self.expanded.scopes {
            let members: Vec<usize> = scope.names.iter().filter_map(|name| scope.by_name.get(name).copied()).collect();
            let place: HashMap<usize, usize> = members.iter().enumerate().map(|(at, member)| (*member, at)).collect();
            let needs: Vec<Vec<usize>> = members.iter().map(|member| self.needs(*member, &place)).collect();
            let mut ordered = order::order(&needs);
            let known: HashSet<usize> = ordered.iter().copied().collect();
            let left = (0..members.len()).filter(|at| !known.contains(at));
            if let Some(member) = left.clone().next().and_then(|at| self.expanded.members.get(*members.get(at)?))
                && has_matrix
                && problems.is_empty()
            {
                // Stages of definitions can feed each other forth and back without a circle.
                let message = format!("stage `{}` takes an input from a stage that it feeds itself", member.stage.id);
                let help = "in a pipeline with a matrix, split its definition into two".to_owned();
                problems.within(&scope.used);
                problems.push(Problem::at(member.stage.id_span, message).help(help));
            }
            ordered.extend(left);
            orders.push(ordered.into_iter().filter_map(|at| members.get(at).copied()).collect());
        }
        orders
    }

    fn needs(&self, member: usize, place: &HashMap<usize, usize>) -> Vec<usize> {
        let from = self.feeds.get(member).into_iter().flatten().filter_map(|feed| match feed.from {
            Origin::Stage { member, .. } => place.get(&member).copied(),
            Origin::Input { .. } => None,
        });
        from.collect()
    }

    /// Makes the instances of the stages of a file, below an instance of the stage that uses it.
    fn scope(&mut self, number: usize, outer: Option<usize>, order: &[Vec<usize>], problems: &mut Problems) {
        for member in order.get(number).into_iter().flatten() {
            let Some(batch) = self.batch(*member, outer, problems) else { continue };
            let Some(Body::Definition(_, inside)) = self.expanded.members.get(*member).map(|member| member.body) else {
                continue;
            };
            for instance in batch {
                self.scope(inside, Some(instance), order, problems);
            }
        }
    }

    /// Makes the instances of a stage.
    fn batch(&mut self, index: usize, outer: Option<usize>, problems: &mut Problems) -> Option<Range<usize>> {
        let expanded = self.expanded;
        let member = expanded.members.get(index)?;
        let scope = expanded.scopes.get(member.scope)?;
        problems.within(&scope.used);
        // Nothing where the stage that uses the definition has problems.
        let params = match outer {
            Some(outer) => Some(self.instances.get(outer)?.params.clone()?),
            None => None,
        };
        let pipeline = self.names;
        let names = |matrix| match &params {
            Some(params) => Names { params, variables: None, environment: pipeline.environment, matrix },
            None => Names { matrix, ..pipeline },
        };
        let found = self.combinations(index, outer, names(pipeline.matrix), problems);
        let is_known = found.is_some() && (!self.is_unsure || member.stage.inputs.is_empty());
        self.is_unsure |= found.is_none();
        let table = found.unwrap_or_else(Table::unit);
        let first = self.instances.len();
        if first + table.rows.len() > MOST_STAGES {
            let message =
                format!("with the {} of stage `{}` there are more than {MOST_STAGES} stages", table.rows.len(), member.stage.id);
            problems.push(Problem::at(member.stage.id_span, message).help("take values away, or split the pipeline".to_owned()));
            return None;
        }
        for row in &table.rows {
            let matrix = if is_known { Combination::Of(&table.axes, row) } else { Combination::Unknown };
            let names = names(matrix);
            let parameters = configure(member, &expanded.scopes, names, self.budget, &mut self.paths, problems);
            let described = Interpolator::new(names, self.budget).description(&member.stage, problems);
            let (configured, params) = match parameters {
                Some(Parameters::Node(configured)) => (Some(configured), None),
                Some(Parameters::Definition(params)) => (None, Some(Rc::new(params))),
                None => (None, None),
            };
            let id = self.name(member, outer, &table.axes, row, problems);
            let (description, inputs, row) = (described, Vec::new(), row.clone());
            self.instances.push(Instance { member: index, id, description, configured, inputs, row, params });
        }
        let instances = first..self.instances.len();
        self.placed.insert((index, outer), self.batches.len());
        self.batches.push(Batch { member: index, outer, axes: table.axes, instances: instances.clone() });
        Some(instances)
    }

    /// The combinations of a stage; nothing when they cannot be told, which is a problem then.
    fn combinations(&mut self, index: usize, outer: Option<usize>, names: Names, problems: &mut Problems) -> Option<Table> {
        let stage = &self.expanded.members.get(index)?.stage;
        let mut table = Table::unit();
        // Within a definition nothing is known of the pipeline.
        let pipeline = if outer.is_none() { Rc::clone(&self.pipeline) } else { Rc::default() };
        let referred = |axis: &&Rc<str>| self.axes.get(index).is_some_and(|axes| axes.contains(&***axis));
        let axes: Vec<Rc<str>> = pipeline.axes.iter().filter(referred).cloned().collect();
        if !axes.is_empty() {
            table = self.projection(&axes).as_ref().clone();
        }
        for feed in self.feeds.get(index)? {
            if let Origin::Stage { .. } = feed.from {
                let yielded = self.yielded(feed, outer, problems)?.inherited();
                table = joined(&table, &yielded, &stage.id, stage.id_span, problems)?;
            }
        }
        if let Some(entry) = stage.matrix {
            let own = matrix::read(entry, &mut Interpolator::new(names, self.budget), problems)?;
            let known = |axis: &&Rc<str>| table.axes.contains(axis) || pipeline.axes.contains(axis);
            if let Some(axis) = own.axes.iter().find(known) {
                let whose = if pipeline.axes.contains(axis) { "the pipeline" } else { "a stage that feeds this one" };
                let message = format!("{whose} has an axis `{axis}` too");
                let help = "rename it, or leave it out: the stage has that one already".to_owned();
                problems.push(Problem::at(matrix::place(entry, axis), message).help(help));
                return None;
            }
            let axes = self.axes.get(index)?;
            matrix::check_used(entry, &own, |axis| axes.contains(axis), &stage.id, problems);
            table = joined(&table, &own, &stage.id, stage.id_span, problems)?;
        }
        let held: Vec<Rc<str>> = pipeline.axes.iter().filter(|axis| table.axes.contains(axis)).cloned().collect();
        if held.len() > 1 {
            // What comes together by way of two stages must be a combination of the pipeline's matrix.
            table = joined(&table, &self.projection(&held), &stage.id, stage.id_span, problems)?;
        }
        if table.rows.is_empty() {
            let message = format!("stage `{}` has no combination: its inputs have none in common", stage.id);
            let help = "stages are joined on the axes that they share; give them values that they share".to_owned();
            problems.push(Problem::at(stage.id_span, message).help(help));
            return None;
        }
        Some(table.in_order_of(&held))
    }

    /// The pipeline's matrix on some of its axes.
    fn projection(&mut self, axes: &[Rc<str>]) -> Rc<Table> {
        let pipeline = &self.pipeline;
        Rc::clone(self.projections.entry(axes.to_vec()).or_insert_with(|| Rc::new(pipeline.project(axes))))
    }

    /// What a feed of a stage below an instance `outer` comes from; nothing after a problem.
    fn yielded(&mut self, feed: &Feed, outer: Option<usize>, problems: &mut Problems) -> Option<Yielded> {
        let Origin::Stage { member, selector, node, .. } = feed.from else { return None };
        let stage = &self.expanded.members.get(member)?.stage.id;
        let known = self.sources.get(&(member, node, outer)).cloned();
        let source = match known.map_or_else(|| self.source(member, node, outer, stage), |known| Some(Ok(known)))? {
            Ok(source) => source,
            Err(message) => {
                problems.push(Problem::at(feed.span, message).help("rename one of them".to_owned()));
                return None;
            }
        };
        self.sources.insert((member, node, outer), Rc::clone(&source));
        match selector::select(selector, &source.table, &source.labels, stage) {
            Ok(selection) => Some(Yielded { source, selection }),
            Err((message, help)) => {
                problems.push(Problem::at(feed.span, message).help(help));
                None
            }
        }
    }

    /// The combinations in which the stage `member` yields what comes from a `node` inside of it, or from itself. Nothing if that has no
    /// instances yet; what is wrong as the error.
    fn source(&self, member: usize, node: usize, outer: Option<usize>, stage: &str) -> Option<Result<Rc<Source>, String>> {
        // From the stage inwards to the node.
        let mut path = vec![node];
        while let Some(inner) = path.last().filter(|inner| **inner != member) {
            let scope = self.expanded.members.get(*inner)?.scope;
            path.push(self.expanded.scopes.get(scope)?.user?.0);
        }
        let mut table = Table::unit();
        let mut instances = vec![outer];
        for member in path.into_iter().rev() {
            let mut longer = Table { axes: table.axes.clone(), rows: Vec::new() };
            let mut inner = Vec::new();
            for (row, outer) in table.rows.iter().zip(instances) {
                let batch = self.batches.get(*self.placed.get(&(member, outer))?)?;
                if let Some(axis) = batch.axes.iter().find(|axis| table.axes.contains(axis)) {
                    let message =
                        format!("what comes from stage `{stage}` has two axes `{axis}`, one of them within its definition");
                    return Some(Err(message));
                }
                let new: Vec<Rc<str>> = batch.axes.iter().filter(|axis| !longer.axes.contains(axis)).cloned().collect();
                longer.axes.extend(new);
                let own = |axis: &Rc<str>| batch.axes.iter().position(|name| name == axis);
                let columns: Vec<Option<usize>> = longer.axes.iter().skip(row.len()).map(own).collect();
                for at in batch.instances.clone() {
                    let values = &self.instances.get(at)?.row;
                    let added = columns.iter().map(|column| values.get((*column)?)?.clone());
                    longer.rows.push(row.iter().cloned().chain(added).collect());
                    inner.push(Some(at));
                }
            }
            // An axis that only later combinations have is missing in those before.
            let width = longer.axes.len();
            longer.rows.iter_mut().for_each(|row| row.resize(width, None));
            (table, instances) = (longer, inner);
        }
        let labels = selector::labels(&table);
        Some(Ok(Rc::new(Source { table, labels, instances: instances.into_iter().flatten().collect() })))
    }

    /// The name of an instance.
    fn name(&self, member: &Member, outer: Option<usize>, axes: &[Rc<str>], row: &Row, problems: &mut Problems) -> String {
        let outer = outer.and_then(|outer| self.instances.get(outer));
        let outer_id = outer.and_then(|outer| Some(&self.expanded.members.get(outer.member)?.stage.id));
        let own = outer_id.and_then(|id| member.stage.id.strip_prefix(id.as_str())).unwrap_or(&member.stage.id);
        let label = label::bounded(combination::label(axes, row));
        let brackets = if label.is_empty() { String::new() } else { format!("[{label}]") };
        let id = format!("{}{own}{brackets}", outer.map_or("", |outer| &outer.id));
        let problem = |message: String| Problem::at(member.stage.id_span, message).help("rename the stage".to_owned());
        if id.len() > LONGEST_ID {
            problems.push(problem(format!("the name `{id}` is longer than {LONGEST_ID} bytes")));
        } else if !label.is_empty() && member.stage.id.ends_with(']') {
            problems.push(problem(format!("stage `{own}` has combinations, so its own name cannot have brackets")));
        }
        id
    }

    /// Gives every instance its inputs.
    fn connect(&mut self, problems: &mut Problems) {
        // An instance comes after that of the stage that uses its definition.
        for batch in 0..self.batches.len() {
            let Some(Batch { member, outer, axes, instances }) = self.batches.get(batch) else { continue };
            let scope = self.expanded.members.get(*member).and_then(|member| self.expanded.scopes.get(member.scope));
            problems.within(scope.map_or(&[], |scope| &scope.used));
            let (outer, axes, instances) = (*outer, axes.clone(), instances.clone());
            for feed in self.feeds.get(*member).into_iter().flatten() {
                let inputs = match feed.from {
                    Origin::Stage { .. } => self.stage_inputs(feed, outer, &axes, instances.clone(), problems),
                    Origin::Input { name, is_many } => self.outer_inputs(feed, name, is_many, outer, instances.len()),
                };
                for (instance, inputs) in instances.clone().zip(inputs.into_iter().flatten()) {
                    self.edges += inputs.len();
                    if let Some(instance) = self.instances.get_mut(instance) {
                        instance.inputs.extend(inputs);
                    }
                }
                if self.edges > MOST_EDGES {
                    let message = format!("the stages have more than {MOST_EDGES} inputs in all");
                    return problems.push(Problem::at(feed.span, message).help("collect fewer combinations".to_owned()));
                }
            }
            self.check_labels(instances, problems);
        }
    }

    /// Those of a port must differ.
    fn check_labels(&self, instances: Range<usize>, problems: &mut Problems) {
        for instance in self.instances.get(instances).into_iter().flatten() {
            let mut seen = HashSet::new();
            let labelled = instance.inputs.iter().filter_map(|input| Some((input.port, input.label.as_deref()?)));
            for (port, label) in labelled.filter(|input| !seen.insert(*input)) {
                let feed = self.feeds.get(instance.member).into_iter().flatten().rfind(|feed| feed.port == port);
                let Some(feed) = feed else { continue };
                let message = format!("input `{port}` gets `{label}` twice");
                let help = format!("write `{port}: {{ LABEL: STAGE, LABEL: STAGE }}`");
                problems.push(Problem::at(feed.span, message).help(help));
            }
        }
    }

    /// For each of the `instances` of a stage, which have these `axes`, what a feed from another stage gives to it.
    fn stage_inputs(
        &mut self,
        feed: &Feed<'a>,
        outer: Option<usize>,
        axes: &[Rc<str>],
        instances: Range<usize>,
        problems: &mut Problems,
    ) -> Option<Vec<Vec<Input<'a>>>> {
        let Origin::Stage { member, output, .. } = feed.from else { return None };
        let Yielded { source, selection } = self.yielded(feed, outer, problems)?;
        let Source { table, instances: nodes, .. } = &*source;
        let stage = &self.expanded.members.get(member)?.stage.id;
        let names: Vec<Rc<str>> = selection.collected.iter().filter_map(|column| table.axes.get(*column).cloned()).collect();
        let label = |row: &Row| -> Option<Rc<str>> {
            let label = feed.label?;
            if names.is_empty() {
                return Some(label.into());
            }
            let combination = label::bounded(combination::label(&names, &combination::pick(row, &selection.collected)));
            let is_named = !selector::split(label).0.ends_with(']');
            let name = if is_named { label } else { stage };
            Some(if feed.is_alone { combination.into() } else { format!("{name}[{combination}]").into() })
        };
        let mut found: HashMap<Row, Vec<Input<'a>>> = HashMap::new();
        for at in &selection.rows {
            let (row, from) = (table.rows.get(*at)?, *nodes.get(*at)?);
            let input = Input { port: feed.port, label: label(row), from, output };
            found.entry(combination::pick(row, &selection.inherited)).or_default().push(input);
        }
        let inherited: Vec<&Rc<str>> = selection.inherited.iter().filter_map(|column| table.axes.get(*column)).collect();
        let columns: Vec<usize> = inherited.iter().filter_map(|axis| axes.iter().position(|name| name == *axis)).collect();
        let row = |at: usize| self.instances.get(at).map(|instance| combination::pick(&instance.row, &columns));
        let mut fed = Vec::new();
        let mut count = self.edges;
        for at in instances {
            let inputs = found.get(&row(at)?).cloned().unwrap_or_default();
            count += inputs.len();
            fed.push(inputs);
            if count > MOST_EDGES {
                break;
            }
        }
        Some(fed)
    }

    /// For each of `count` instances, what feeds an input of the definition.
    fn outer_inputs(
        &self,
        feed: &Feed<'a>,
        name: &str,
        is_many: bool,
        outer: Option<usize>,
        count: usize,
    ) -> Option<Vec<Vec<Input<'a>>>> {
        let given = self.instances.get(outer?)?.inputs.iter().filter(|input| input.port == name);
        let input = |input: &Input<'a>| {
            let label = if is_many { input.label.clone() } else { feed.label.map(Rc::from) };
            Input { port: feed.port, label, ..input.clone() }
        };
        let inputs: Vec<Input<'a>> = given.map(input).collect();
        Some(vec![inputs; count])
    }
}

/// Two tables together, within the bound.
fn joined(table: &Table, other: &Table, stage: &str, span: Span, problems: &mut Problems) -> Option<Table> {
    match table.join(other, MOST_STAGES) {
        Ok(table) => Some(table),
        Err(count) => {
            let message =
                format!("stage `{stage}` would have {count} combinations; a pipeline may have at most {MOST_STAGES} stages");
            problems.push(Problem::at(span, message).help("take values away, or split the pipeline".to_owned()));
            None
        }
    }
}
