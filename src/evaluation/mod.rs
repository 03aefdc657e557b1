//! Retrieval metrics, judgement rules, triplet mining.
