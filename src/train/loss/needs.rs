//! What a loss wants of the rows it is given.

use std::ops::RangeInclusive;

use crate::artifact::Example;
use crate::train::sampling::Sampler;

/// What a loss wants of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The loss, for messages.
    pub loss: &'static str,
    /// How many texts.
    pub texts: RangeInclusive<usize>,
    pub labels: Labels,
    /// How its data is cut into batches, unless the user says otherwise.
    pub sampler: Sampler,
}

/// What the labels of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// The loss looks at none.
    None,
    /// 1 where the two texts belong together, else 0.
    Binary,
    /// How similar the two texts are, on any scale.
    Grade,
    /// By how much the positive's score exceeds that of each negative; or the score of each text but the anchor.
    Margins,
    /// The score of each text but the anchor.
    Scores,
}

impl Labels {
    pub fn are_wanted(self) -> bool {
        self != Labels::None
    }

    fn describe(self) -> &'static str {
        match self {
            Labels::None => "no label",
            Labels::Binary => "a `label` that is 0 or 1",
            Labels::Grade => "a `label` that says how similar the texts are",
            Labels::Margins => {
                "a `label` (positive's score less the negative's) or `scores`: a margin for each negative, or a score for each text but the anchor"
            }
            Labels::Scores => "`scores`: one for each text but the anchor",
        }
    }

    /// Whether there are as many labels as they should be.
    fn counts(self, texts: usize, labels: usize) -> bool {
        match self {
            Labels::None => true,
            Labels::Binary | Labels::Grade => labels == 1,
            Labels::Margins => labels + 2 == texts || labels + 1 == texts,
            Labels::Scores => labels + 1 == texts,
        }
    }
}

impl Needs {
    /// Whether the loss can take the row; if not, why.
    pub fn check(&self, example: &Example) -> Result<(), String> {
        let texts = example.texts().count();
        if !self.texts.contains(&texts) {
            return Err(format!("the row has {texts} texts, but the loss `{}` wants {}", self.loss, self.describe_texts()));
        }
        if !self.labels.counts(texts, example.labels.len()) {
            let found = example.labels.len();
            return Err(format!("the row has {found} labels, but the loss `{}` wants {}", self.loss, self.labels.describe()));
        }
        // As a float of half the size: what is larger becomes infinite there.
        let odd = |label: &&f64| match self.labels {
            Labels::None => false,
            Labels::Binary => **label != 0.0 && **label != 1.0,
            _ => !(**label as f32).is_finite(),
        };
        match example.labels.iter().find(odd) {
            Some(label) => {
                Err(format!("the label {label} does not fit: the loss `{}` wants {}", self.loss, self.labels.describe()))
            }
            None => Ok(()),
        }
    }

    fn describe_texts(&self) -> String {
        let negatives = match (self.texts.start() - 2, self.texts.end().saturating_sub(2)) {
            (0, 0) => "no negative".to_owned(),
            (1, 1) => "a negative".to_owned(),
            (0, _) => "any number of negatives".to_owned(),
            (from, _) => format!("{from} or more negatives"),
        };
        format!("an anchor, a positive and {negatives}")
    }
}
