//! Where the time of a graph goes, from ONNX Runtime's profiles, which it writes to where `RETUNE_PROFILE` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// What the name of an operator contains that is a matrix product in the main: ONNX's own, the fused ones, and those of retune. Attention is two products
/// with a softmax between them.
const PRODUCTS: &[&str] = &["MatMul", "Gemm", "Linear", "Attention"];

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: serde_json::Value,
}

/// Seconds of all runs of a graph but the first ones.
#[derive(Default)]
pub struct Profile {
    pub runs: usize,
    /// Of the runs as a whole.
    pub seconds: f64,
    /// Operator → calls and seconds.
    operators: BTreeMap<String, (usize, f64)>,
}

impl Profile {
    /// Reads the profiles in `folder`, without the first `warm_up` runs of each.
    pub fn read(folder: &Path, warm_up: usize) -> Self {
        let mut profile = Profile::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).expect("a profile is text");
            let events: Vec<Event> = serde_json::from_str(&text).expect("a profile is a list of events");
            profile.add(events, warm_up);
        }
        profile
    }

    fn add(&mut self, events: Vec<Event>, warm_up: usize) {
        let mut runs: Vec<&Event> = events.iter().filter(|event| event.name == "model_run").collect();
        runs.sort_by(|a, b| a.ts.total_cmp(&b.ts));
        let Some(first) = runs.get(warm_up) else { return };
        self.runs += runs.len() - warm_up;
        self.seconds += runs[warm_up..].iter().map(|run| run.dur / 1e6).sum::<f64>();
        for event in events.iter().filter(|e| e.cat == "Node" && e.name.ends_with("_kernel_time") && e.ts >= first.ts) {
            let operator = self.operators.entry(event.args["op_name"].as_str().unwrap_or("?").to_owned()).or_default();
            *operator = (operator.0 + 1, operator.1 + event.dur / 1e6);
        }
    }

    /// The rows of a table: what it is, calls, milliseconds and share of a step of `step` seconds. The first tell of the groups, the others of
    /// operators.
    pub fn rows(&self, step: f64) -> Vec<Vec<String>> {
        let runs = self.runs.max(1) as f64;
        let mut operators: Vec<_> = self.operators.iter().collect();
        operators.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let sum = |product: bool| {
            let chosen = operators.iter().filter(|(name, _)| is_product(name) == product);
            chosen.fold((0, 0.0), |(calls, seconds), (_, operator)| (calls + operator.0, seconds + operator.1))
        };
        let (products, others) = (sum(true), sum(false));
        let row = |what: String, calls: usize, seconds: f64| {
            let calls = if calls > 0 { format!("{:.0}", calls as f64 / runs) } else { String::new() };
            vec![what, calls, format!("{:.1}", seconds / runs * 1e3), format!("{:.1} %", 100.0 * seconds / runs / step)]
        };
        let mut rows = vec![
            row("matrix products".into(), products.0, products.1),
            row("other operators".into(), others.0, others.1),
            row("ONNX Runtime between operators".into(), 0, self.seconds - products.1 - others.1),
            row("optimizer, batches".into(), 0, step * runs - self.seconds),
        ];
        rows.extend(operators.iter().map(|(name, (calls, seconds))| row(format!("  {name}"), *calls, *seconds)));
        rows
    }
}

fn is_product(operator: &str) -> bool {
    PRODUCTS.iter().any(|product| operator.contains(product))
}
