//! RoBERTa (Liu et al., 2019), XLM-RoBERTa (Conneau et al., 2020) and CamemBERT: BERT with positions that are counted from
//! behind the padding token's number.

use super::architecture::Encoder;
use super::bert::Bert;
use super::settings::Settings;

pub fn read(settings: &Settings) -> Result<Box<dyn Encoder>, String> {
    let padding = settings.count(&["pad_token_id"])?.unwrap_or(1);
    Ok(Box::new(Bert::read(settings, padding + 1, 2)?))
}
