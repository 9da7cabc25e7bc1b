//! Pairs of a range in order: what the host has, under what the entry wrote.
//!
//! Relies on the buffer's layers and the host's cursor. Promises each key once, with its newest value,
//! and none that was removed. Knows bytes only.

use std::borrow::Cow;
use std::iter::Peekable;

use super::buffer::Store;
use super::layer::{Layer, StateKey, Written};
use crate::host::{Direction, Pages, Pair};

/// Pairs asked of the host at first; most scans are short.
const PAGE_ITEMS_FIRST: u32 = 16;
/// Pairs asked of the host at once when a scan turns out long.
const PAGE_ITEMS_MAX: u32 = 512;
/// Bytes asked of the host at once.
const PAGE_BYTES_MAX: u32 = 256 << 10;

type Change<'a> = (&'a StateKey, &'a Written);
/// Bytes that are borrowed from a layer or were read from the host.
type Part<'a> = Cow<'a, [u8]>;
type LayerScan<'a> = Peekable<Box<dyn Iterator<Item = Change<'a>> + 'a>>;

/// A range being read.
pub(super) struct Scan<'a> {
    direction: Direction,
    /// The command's writes, then the entry's: the newest first.
    layers: [LayerScan<'a>; 2],
    host: HostScan,
}

/// The host's part of a range, read page by page.
struct HostScan {
    pages: Box<dyn Pages>,
    page: Peekable<std::vec::IntoIter<Pair>>,
    items_next: u32,
    ended: bool,
}

impl HostScan {
    fn peek(&mut self) -> Option<&Pair> {
        if self.page.peek().is_none() && !self.ended {
            let page = self.pages.next(self.items_next, PAGE_BYTES_MAX);
            self.items_next = (self.items_next * 2).min(PAGE_ITEMS_MAX);
            self.ended = page.is_empty();
            self.page = page.into_iter().peekable();
        }
        self.page.peek()
    }
}

fn layer_scan<'a>(
    layer: &'a Layer,
    start: &StateKey,
    end: Option<&StateKey>,
    direction: Direction,
) -> LayerScan<'a> {
    // A map panics on a range that ends before it starts; such a range has nothing.
    if layer.is_empty() || end.is_some_and(|end| end <= start) {
        let nothing: Box<dyn Iterator<Item = Change<'a>>> = Box::new(std::iter::empty());
        return nothing.peekable();
    }
    let range = layer.range(start, end);
    let pairs: Box<dyn Iterator<Item = Change<'a>>> = match direction {
        Direction::Ascending => Box::new(range),
        Direction::Descending => Box::new(range.rev()),
    };
    pairs.peekable()
}

impl<'a> Scan<'a> {
    /// Reads from `start` to `end`, excluded.
    pub(super) fn new(
        store: &'a Store,
        start: &StateKey,
        end: Option<&StateKey>,
        direction: Direction,
    ) -> Self {
        Self {
            direction,
            layers: store.layers().map(|layer| layer_scan(layer, start, end, direction)),
            host: HostScan {
                pages: store.host().scan(&start.0, end.map(|end| &*end.0), direction),
                page: Vec::new().into_iter().peekable(),
                items_next: PAGE_ITEMS_FIRST,
                ended: false,
            },
        }
    }

    fn comes_first(direction: Direction, key: &[u8], other: &[u8]) -> bool {
        match direction {
            Direction::Ascending => key < other,
            Direction::Descending => key > other,
        }
    }

    /// The first key of all parts, with what the newest part says of it.
    fn step(&mut self) -> Option<(Part<'a>, Option<Part<'a>>)> {
        let [command, entry] = &mut self.layers;
        let mut first: Option<Change<'a>> = None;
        for layer in [command, entry] {
            if let Some(written) = layer.peek() {
                let sooner = |first: Change<'a>| Self::comes_first(self.direction, &written.0.0, &first.0.0);
                if first.is_none_or(sooner) {
                    first = Some(*written);
                }
            }
        }
        let host_first = match (self.host.peek(), first) {
            (Some(_), None) => true,
            (Some(pair), Some(written)) => Self::comes_first(self.direction, &pair.0, &written.0.0),
            (None, _) => false,
        };
        if host_first {
            let (key, value) = self.host.page.next()?;
            return Some((Cow::Owned(key), Some(Cow::Owned(value))));
        }
        let (key, written) = first?;
        for layer in &mut self.layers {
            layer.next_if(|other| other.0 == key);
        }
        self.host.page.next_if(|pair| pair.0 == key.0);
        Some((Cow::Borrowed(&key.0), written.as_deref().map(Cow::Borrowed)))
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = (Part<'a>, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (key, Some(value)) = self.step()? {
                return Some((key, value));
            }
        }
    }
}
