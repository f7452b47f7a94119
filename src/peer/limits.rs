//! The reference peer's rows of the table of bounds.

use peerlane_transport::{ClassTable, limits::LimitRow};

use super::{MAX_DATA, MAX_RECENT, gossip::SEEN, service::DESKS, store::CACHE};
use crate::cad015::{IN_FLIGHT, PenLimits};

/// A belief remembered: its hash, when, and its place in two tables. Bytes.
const SEEN_ENTRY: usize = 160;

/// What a reference peer holds beside its node: one row for each bound, worst cases per process.
#[must_use]
pub fn limit_rows(classes: &ClassTable) -> Vec<LimitRow> {
    let row = |name: &str, bound: String, reason, worst_case| LimitRow { name: name.into(), bound, reason, worst_case };
    let pen = PenLimits::default();
    let largest = |name: &str| classes.by_name(name).map_or(0, |id| classes[id].max_message);
    let [query, transact, data] = [ClassTable::QUERY, ClassTable::TRANSACT, ClassTable::DATA].map(largest);
    vec![
        row(
            "pen",
            format!("{} x {} B", pen.entries, pen.bytes),
            "cells of partial beliefs, and those that come while it's worked on",
            2 * pen.entries * pen.bytes,
        ),
        row(
            "acquisitions",
            format!("{} x {} requests", pen.entries, 2 * IN_FLIGHT),
            "answers to MISSING_DATA",
            pen.entries * 2 * IN_FLIGHT * data,
        ),
        row("seen set", format!("{}", SEEN.0), "beliefs merged or proven invalid: a copy costs a lookup", SEEN.0 * SEEN_ENTRY),
        row(
            "requests at the store",
            format!("{DESKS} of each kind"),
            "a request that is taken back frees its worker before its work is done",
            // What was asked, and the answer.
            DESKS * (2 * query + 2 * transact + 2 * MAX_DATA),
        ),
        row("recent cells", format!("{MAX_RECENT} B"), "what beliefs carry", MAX_RECENT),
        row("pages of the store", format!("{CACHE} B"), "redb's cache", CACHE),
    ]
}
