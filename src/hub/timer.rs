//! Deadlines in time order: a hierarchical timer wheel.
//!
//! Called by [`hub`](super) only. A park with a deadline inserts a timer, and removes it if something else ends the
//! park. The hub's loop asks [`Wheel::next_wake`] how long to poll, and fires what is due with [`Wheel::expire`]. The
//! wheel itself calls nothing else. Time is in nanoseconds since the hub's origin. A tick is 2^16 of them (65.5 µs), so
//! the 48 bits of a tick are exactly 8 levels of 6 bits, and no deadline is too far away.
//!
//! ```text
//!                       deadline  ┌───┬───┬───┬───┬───┬───┬───┬───┬────────────────┐
//!                                 │ 7 │ 6 │ 5 │ 4 │ 3 │ 2 │ 1 │ 0 │ within a tick  │
//!                                 └───┴───┴───┴───┴───┴───┴───┴───┴────────────────┘
//!  level 7 │··························64 slots of 9.1 years····│     6 bits each         16 bits
//!     …
//!  level 2 │········█·······█···│ 64 slots of 268 ms             A timer goes to the level of the highest digit in
//!  level 1 │·····█──┘█··········│ 64 slots of 4.2 ms             which its tick differs from the current one, to the
//!  level 0 │··▲██└──────────────│ 64 slots of 65.5 µs            slot of that digit; when the time reaches the slot,
//!             tick                                               what is not due yet goes to lower levels.
//!
//!  slot: top ─► chunk (part full) ─► chunk (full) ─► …            cell:  deadline, generation, index of the entry
//!                      ▲ cell                                     entry: value, generation, place of the cell
//!  Key ─► entries[index].place
//! ```
//!
//! # Invariants
//! - **TIMER-1** The slot of a timer is `slot_of(tick, deadline)`, at all times: it is computed and not stored. `tick`
//!   moves past the start of an occupied slot only by emptying that slot.
//! - **TIMER-2** By TIMER-1 each occupied slot of a level lies after the slot of the current tick, or on level 0 at it.
//!   So no level wraps around. And each timer of a level is earlier than each timer of the next higher level. So the
//!   earliest slot is the first occupied one of the lowest level that has one.
//! - **TIMER-3** A slot has no order: its last cell fills the hole of a removed one. So only top chunks are partly
//!   full, and the memory of chunks is proportional to the pending timers, not to all that there ever were. Timers that
//!   are due are sorted by deadline and then by generation. Generations are compared by their distance to the next one,
//!   which is right for 2^32 − 1 insertions, wrapped or not. By TIMER-2 the batches of successive slots are in order
//!   already.
//! - **TIMER-4** A deadline in the past belongs to the current slot. Nothing in the wheel has a deadline below `floor`.
//! - **TIMER-5** Generations are drawn from one counter of the wheel, so a key stays stale when the slab is freed and
//!   begins again. A stale key names a timer only if its index is taken again exactly a multiple of 2^32 − 1 insertions
//!   later.
//! - **TIMER-6** A panic of the caller's `fire` loses the fired timer only: `Firing` puts the rest of its batch back.
//!
//! # Rejected
//! - A binary heap: O(log n) cache misses per operation. A cancelled timer (nearly all are) has to be searched for, or
//!   stays in the heap until its deadline. And the hub wakes once per deadline, where a slot needs one wake-up per
//!   tick.
//! - A `BTreeMap<(deadline, sequence), T>`: cancels well, but at 1M pending each operation is 5 dependent misses.
//! - One ring with a count of rounds: every turn walks all of the far timers.
//! - Slots as lists linked through the entries: measured, 210 ns to expire one of 1M timers instead of 80. Each step of
//!   a cascade waits for a cache miss to know the next, where the cells of a chunk name 15 entries at once.
//! - The places in an array of their own, for cascades to write to: measured, no faster.
//! - Slots as `Vec`s: 512 buffers that keep the memory of their peaks, and stall to grow.

#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::num::NonZeroU32;

/// Nanoseconds of a tick, as a power of two.
const TICK_BITS: u32 = 16;
/// Bits of a tick that choose a slot on one level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = ((u64::BITS - TICK_BITS) / SLOT_BITS) as usize;
/// Cells of a chunk: with its link they fill four cache lines.
const CELLS: usize = 15;
/// A place is a chunk and, in its low bits, a cell.
const CELL_BITS: u32 = 4;
/// The end of a list.
const NIL: u32 = u32::MAX;
/// A slab up to this many entries is kept when the wheel gets empty.
const KEEP: usize = 4096;

/// The name of a pending timer. Once that has fired or been removed, the key is stale and names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: NonZeroU32,
}

/// The value that a key names; the entry is free if there is none.
struct Entry<T> {
    value: Option<T>,
    generation: NonZeroU32,
    /// The place of the timer's cell; if free, the next free entry.
    place: u32,
}

/// A timer in its slot: everything that a cascade reads.
#[derive(Clone, Copy)]
struct Cell {
    deadline: u64,
    key: Key,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Chunk {
    cells: [Cell; CELLS],
    /// The chunk below in the same slot, or the next free one.
    below: u32,
}

/// A stack of chunks; only the top one may be partly full (TIMER-3).
#[derive(Clone, Copy)]
struct Slot {
    top: u32,
    /// How many cells of the top chunk are used. Without a chunk it is `CELLS`, so that the next cell makes one.
    fill: u32,
}

impl Slot {
    const EMPTY: Slot = Slot {
        top: NIL,
        fill: CELLS as u32,
    };
}

/// The timers of a hub.
pub(crate) struct Wheel<T> {
    /// The time up to which everything has fired.
    now: u64,
    /// The current tick: that of `now`, except while a panic of `fire` has cut an expiry short.
    tick: u64,
    /// No deadline is below this (TIMER-4). It saves the scan of the current slot when nothing in it is due.
    floor: u64,
    len: u32,
    /// The generation of the next insertion (TIMER-5).
    generation: NonZeroU32,
    free_entry: u32,
    free_chunk: u32,
    entries: Vec<Entry<T>>,
    chunks: Vec<Chunk>,
    /// Lent to each batch, so that an expiry does not allocate.
    scratch: Vec<Cell>,
    /// Bit s of level l: slot l × 64 + s is not empty.
    occupied: [u64; LEVELS],
    slots: Box<[Slot; LEVELS * SLOTS]>,
}

/// The slot of a deadline as seen from a tick (TIMER-1).
#[inline]
fn slot_of(tick: u64, deadline: u64) -> usize {
    let at = (deadline >> TICK_BITS).max(tick);
    // The lowest digit is set so that a difference there, or none, is level 0.
    let level = ((at ^ tick) | (SLOTS as u64 - 1)).ilog2() / SLOT_BITS;
    let digit = (at >> (level * SLOT_BITS)) as usize % SLOTS;
    level as usize * SLOTS + digit
}

/// The last tick of a slot that starts at one.
#[inline]
fn last_of(slot: usize, start: u64) -> u64 {
    start | ((1 << (slot / SLOTS * SLOT_BITS as usize)) - 1)
}

/// The last nanosecond of a tick.
#[inline]
fn end_of(tick: u64) -> u64 {
    (tick << TICK_BITS) | ((1 << TICK_BITS) - 1)
}

impl<T> Wheel<T> {
    /// An empty wheel, at a time.
    pub(crate) fn new(now: u64) -> Wheel<T> {
        Wheel {
            now,
            tick: now >> TICK_BITS,
            floor: now,
            len: 0,
            generation: NonZeroU32::MIN,
            free_entry: NIL,
            free_chunk: NIL,
            entries: Vec::new(),
            chunks: Vec::new(),
            scratch: Vec::new(),
            occupied: [0; LEVELS],
            slots: Box::new([Slot::EMPTY; LEVELS * SLOTS]),
        }
    }

    /// How many timers are pending.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a pending timer.
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        entry.value.as_ref().filter(|_| entry.generation == key.generation)
    }

    /// Adds a timer. A deadline in the past is due at the next expiry.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let generation = self.generation;
        self.generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let key = Key {
            index: self.store(value, generation),
            generation,
        };
        self.len += 1;
        // TIMER-4: the new deadline may be the earliest, or lie in the past.
        self.floor = self.floor.min(deadline);
        self.link(Cell { deadline, key });
        key
    }

    /// Takes a timer out before it fires; none if the key is stale.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        // A stale key ends here: its entry is free, or has a later generation.
        self.get(key)?;
        // The place is read before `release`, which overwrites it with the link of the free list.
        let place = self.entries[key.index as usize].place;
        let value = self.release(key.index)?;
        self.unlink(place);
        self.trim();
        Some(value)
    }

    /// Moves the time on and fires all that is due, in order of deadline and then of insertion. Time never moves
    /// back: an earlier `now` is the last one again.
    pub(crate) fn expire(&mut self, now: u64, fire: &mut impl FnMut(u64, T)) {
        let now = now.max(self.now);
        let target = now >> TICK_BITS;
        // The common case: still in the current tick, and nothing in its slot is due.
        if target == self.tick && now < self.floor {
            self.now = now;
            return;
        }
        // The first deadline after the current slot, if nothing of that remains.
        let mut floor = end_of(target).saturating_add(1);
        while let Some((slot, start)) = self.first().filter(|&(_, start)| start <= target) {
            let last = last_of(slot, start);
            // Move the time on before the slot is emptied (TIMER-1). What is not due lies at or after `target`, so it
            // goes straight to the slot where it belongs as seen from there.
            self.tick = last.min(target);
            floor = floor.min(self.fire_slot(slot, now, fire));
            // This slot reaches `target`: all others begin after it (TIMER-2).
            if last >= target {
                break;
            }
        }
        self.tick = target;
        self.now = now;
        self.floor = floor;
        self.trim();
    }

    /// The earliest deadline, exactly. Scans a slot, which is long if many timers are far away.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let (slot, _) = self.first()?;
        let Slot { top, fill } = self.slots[slot];
        let (mut at, mut fill) = (top, fill as usize);
        let mut earliest = u64::MAX;
        while let Some(chunk) = self.chunks.get(at as usize) {
            earliest = chunk.cells[..fill]
                .iter()
                .fold(earliest, |earliest, cell| earliest.min(cell.deadline));
            (at, fill) = (chunk.below, CELLS);
        }
        Some(earliest)
    }

    /// When to call [`expire`](Wheel::expire) next: not later than a tick after the earliest deadline, and after
    /// the time of the last expiry unless something is due already. O(levels), unless there were insertions in the
    /// past since then.
    ///
    /// A lone timer is met exactly; several in one tick are waited for to the end of it, together. Several in a
    /// higher slot are waited for to the start of it, to cascade: at most one idle wake-up per level.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        let (slot, start) = self.first()?;
        // A timer may have been inserted in the past. The floor may be too low, so look at the deadlines themselves.
        if self.floor <= self.now && self.next_deadline()? <= self.now {
            return Some(self.now);
        }
        let Slot { top, fill } = self.slots[slot];
        let chunk = &self.chunks[top as usize];
        Some(if fill == 1 && chunk.below == NIL {
            chunk.cells[0].deadline
        } else if slot < SLOTS {
            end_of(start)
        } else {
            start << TICK_BITS
        })
    }

    /// The earliest occupied slot and its first tick (TIMER-2).
    #[inline]
    fn first(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let digit = self.occupied[level].trailing_zeros();
        let shift = level as u32 * SLOT_BITS;
        let above = shift + SLOT_BITS;
        // The digits above the slot's are those of the current tick, and the digits below are 0.
        let start = (self.tick >> above << above) | (u64::from(digit) << shift);
        Some((level * SLOTS + digit as usize, start))
    }

    /// Empties a slot: fires what is due, and moves the rest to other slots. Gives the earliest deadline of the rest.
    fn fire_slot(&mut self, slot: usize, now: u64, fire: &mut impl FnMut(u64, T)) -> u64 {
        let due = mem::take(&mut self.scratch);
        let mut firing = Firing {
            wheel: self,
            due,
            done: 0,
        };
        let rest = firing.wheel.drain(slot, now, &mut firing.due);
        let next = firing.wheel.generation.get();
        let age = |cell: &Cell| cell.key.generation.get().wrapping_sub(next);
        // A stable sort would allocate, and is not needed: no two keys are equal (TIMER-3).
        firing.due.sort_unstable_by_key(|cell| (cell.deadline, age(cell)));
        while let Some(&Cell { deadline, key }) = firing.due.get(firing.done) {
            // Counted before the call: if `fire` panics, only this timer is lost (TIMER-6).
            firing.done += 1;
            if let Some(value) = firing.wheel.release(key.index) {
                fire(deadline, value);
            }
        }
        rest
    }

    /// Takes all cells out of a slot: lists those that are due, and links the others again, as seen from the current
    /// tick.
    fn drain(&mut self, slot: usize, now: u64, due: &mut Vec<Cell>) -> u64 {
        // Empty the slot first: a cell may be linked into it again.
        let Slot { top, fill } = mem::replace(&mut self.slots[slot], Slot::EMPTY);
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        let (mut at, mut fill) = (top, fill as usize);
        let mut rest = u64::MAX;
        while at != NIL {
            for cell in 0..fill {
                let cell = self.chunks[at as usize].cells[cell];
                if cell.deadline <= now {
                    due.push(cell);
                } else {
                    rest = rest.min(cell.deadline);
                    self.link(cell);
                }
            }
            let below = self.chunks[at as usize].below;
            self.free(at);
            // All chunks below the top one are full (TIMER-3).
            (at, fill) = (below, CELLS);
        }
        rest
    }

    /// Puts a value into a free entry, or a new one.
    #[inline]
    fn store(&mut self, value: T, generation: NonZeroU32) -> u32 {
        // `NIL` is no index, so an empty free list falls through to a new entry.
        let index = self.free_entry;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free_entry = entry.place;
            entry.value = Some(value);
            entry.generation = generation;
            return index;
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            value: Some(value),
            generation,
            place: NIL,
        });
        index
    }

    /// Frees an entry and returns its value; none if it is free already.
    #[inline]
    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        let value = entry.value.take()?;
        entry.place = mem::replace(&mut self.free_entry, index);
        self.len -= 1;
        Some(value)
    }

    /// Puts a cell on top of its slot (TIMER-1).
    #[inline]
    fn link(&mut self, cell: Cell) {
        let slot = slot_of(self.tick, cell.deadline);
        if self.slots[slot].fill == CELLS as u32 {
            self.grow(slot, cell);
        }
        let Slot { top, fill } = &mut self.slots[slot];
        self.chunks[*top as usize].cells[*fill as usize] = cell;
        self.entries[cell.key.index as usize].place = (*top << CELL_BITS) | *fill;
        *fill += 1;
    }

    /// Puts a chunk, free or new, on top of a slot. A new chunk is filled with copies of `filler`, which are never
    /// read.
    fn grow(&mut self, slot: usize, filler: Cell) {
        let below = self.slots[slot].top;
        let top = self.free_chunk;
        if let Some(chunk) = self.chunks.get_mut(top as usize) {
            self.free_chunk = mem::replace(&mut chunk.below, below);
            self.slots[slot] = Slot { top, fill: 0 };
        } else {
            let top = self.chunks.len();
            assert!(top < 1 << (u32::BITS - CELL_BITS), "too many timers on one hub");
            self.chunks.push(Chunk {
                cells: [filler; CELLS],
                below,
            });
            self.slots[slot] = Slot {
                top: top as u32,
                fill: 0,
            };
        }
        self.occupied[slot / SLOTS] |= 1 << (slot % SLOTS);
    }

    /// Takes the cell at a place out, and fills the hole with the last one of its slot (TIMER-3).
    #[inline]
    fn unlink(&mut self, place: u32) {
        let (chunk, at) = ((place >> CELL_BITS) as usize, place as usize % (1 << CELL_BITS));
        let deadline = self.chunks[chunk].cells[at].deadline;
        let slot = slot_of(self.tick, deadline);
        let Slot { top, fill } = self.slots[slot];
        let fill = fill - 1;
        self.slots[slot].fill = fill;
        // Unless the removed cell is the last one itself, the last one moves into the hole, and its entry gets the new
        // place.
        if (top << CELL_BITS) | fill != place {
            let last = self.chunks[top as usize].cells[fill as usize];
            self.chunks[chunk].cells[at] = last;
            self.entries[last.key.index as usize].place = place;
        }
        // A chunk without cells must go, as a slot counts as occupied while it has a chunk.
        if fill == 0 {
            self.shrink(slot);
        }
    }

    /// Frees the top chunk of a slot, which has no cells any more.
    fn shrink(&mut self, slot: usize) {
        let top = self.slots[slot].top;
        let below = self.chunks[top as usize].below;
        self.free(top);
        self.slots[slot] = Slot {
            top: below,
            fill: CELLS as u32,
        };
        if below == NIL {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    #[inline]
    fn free(&mut self, chunk: u32) {
        self.chunks[chunk as usize].below = mem::replace(&mut self.free_chunk, chunk);
    }

    /// Gives the memory of a peak back once the wheel is empty. The cost is spread over the insertions that made the
    /// peak.
    #[inline]
    fn trim(&mut self) {
        // Without timers no slot has a chunk, so nothing refers to what is freed here.
        if self.len == 0 && self.entries.capacity() > KEEP {
            self.entries = Vec::new();
            self.chunks = Vec::new();
            self.scratch = Vec::new();
            self.free_entry = NIL;
            self.free_chunk = NIL;
        }
    }
}

/// A batch that is being fired. If a panic cuts it short, the rest is linked again (TIMER-6).
struct Firing<'a, T> {
    wheel: &'a mut Wheel<T>,
    due: Vec<Cell>,
    done: usize,
}

impl<T> Drop for Firing<'_, T> {
    fn drop(&mut self) {
        // Nothing is left unless `fire` has panicked (TIMER-6). The floor sinks too, so that the next expiry finds what
        // is left.
        for &cell in &self.due[self.done..] {
            self.wheel.floor = self.wheel.floor.min(cell.deadline);
            self.wheel.link(cell);
        }
        self.due.clear();
        self.wheel.scratch = mem::take(&mut self.due);
    }
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("now", &self.now)
            .field("len", &self.len())
            .field("next_wake", &self.next_wake())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const TICK: u64 = 1 << TICK_BITS;

    /// A xorshift64 generator: the same numbers in every run.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        /// A number of up to `bits` bits; all magnitudes are equally likely.
        fn spread(&mut self, bits: u64) -> u64 {
            let shift = 64 - 1 - self.below(bits);
            self.next() >> shift
        }
    }

    fn fired<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<(u64, T)> {
        let mut out = Vec::new();
        wheel.expire(now, &mut |deadline, value| out.push((deadline, value)));
        out
    }

    /// Checks TIMER-1, TIMER-3 and TIMER-4 by brute force, and that every chunk and entry is used or free.
    fn check<T>(wheel: &Wheel<T>) {
        let (mut len, mut chunks) = (0, 0);
        for (slot, &Slot { top, fill }) in wheel.slots.iter().enumerate() {
            assert_eq!(wheel.occupied[slot / SLOTS] >> (slot % SLOTS) & 1 == 1, top != NIL);
            let (mut at, mut fill) = (top, fill);
            while at != NIL {
                let chunk = &wheel.chunks[at as usize];
                assert!(fill > 0);
                for (cell, place) in chunk.cells[..fill as usize].iter().zip(at << CELL_BITS..) {
                    let entry = &wheel.entries[cell.key.index as usize];
                    assert!(entry.value.is_some() && cell.deadline >= wheel.floor);
                    assert_eq!((entry.place, entry.generation), (place, cell.key.generation));
                    assert_eq!(slot_of(wheel.tick, cell.deadline), slot);
                }
                len += fill;
                chunks += 1;
                (at, fill) = (chunk.below, CELLS as u32);
            }
        }
        assert_eq!(len, wheel.len);
        let mut at = wheel.free_chunk;
        while at != NIL {
            chunks += 1;
            at = wheel.chunks[at as usize].below;
        }
        let mut at = wheel.free_entry;
        while at != NIL {
            len += 1;
            at = wheel.entries[at as usize].place;
        }
        assert_eq!((chunks, len as usize), (wheel.chunks.len(), wheel.entries.len()));
    }

    /// The wheel, and a model that it must agree with.
    struct Pair {
        wheel: Wheel<u64>,
        model: BTreeMap<(u64, u64), Key>,
        keys: Vec<(u64, u64, Key)>,
        now: u64,
        seq: u64,
    }

    impl Pair {
        fn new(now: u64) -> Pair {
            Pair {
                wheel: Wheel::new(now),
                model: BTreeMap::new(),
                keys: Vec::new(),
                now,
                seq: 0,
            }
        }

        fn insert(&mut self, deadline: u64) {
            self.seq += 1;
            let key = self.wheel.insert(deadline, self.seq);
            assert_eq!(self.wheel.get(key), Some(&self.seq));
            self.model.insert((deadline, self.seq), key);
            self.keys.push((deadline, self.seq, key));
        }

        /// Removes any timer there ever was; many have fired.
        fn remove(&mut self, rng: &mut Rng) {
            if self.keys.is_empty() {
                return;
            }
            let at = rng.below(self.keys.len() as u64) as usize;
            let (deadline, seq, key) = self.keys.swap_remove(at);
            let there = self.model.remove(&(deadline, seq)).map(|_| seq);
            assert_eq!(self.wheel.remove(key), there);
            assert_eq!(self.wheel.remove(key), None);
        }

        fn advance(&mut self, now: u64) {
            self.now = now;
            let out = fired(&mut self.wheel, now);
            let later = match now.checked_add(1) {
                Some(next) => self.model.split_off(&(next, 0)),
                None => BTreeMap::new(),
            };
            let due = mem::replace(&mut self.model, later);
            assert!(out.into_iter().eq(due.into_keys()), "at {now}");
        }

        fn agree(&self) {
            assert_eq!(self.wheel.len(), self.model.len());
            assert_eq!(self.wheel.is_empty(), self.model.is_empty());
            let earliest = self.model.keys().next().map(|key| key.0);
            assert_eq!(self.wheel.next_deadline(), earliest);
            let wake = self.wheel.next_wake();
            assert_eq!(wake.is_some(), earliest.is_some());
            if let (Some(wake), Some(earliest)) = (wake, earliest) {
                assert!(wake <= earliest.max(self.now).saturating_add(TICK - 1));
                assert_eq!(
                    wake <= self.now,
                    earliest <= self.now,
                    "spins, or sleeps on what is due"
                );
            }
        }
    }

    fn deadline(rng: &mut Rng, now: u64) -> u64 {
        match rng.below(16) {
            0 => now.saturating_sub(rng.spread(40)),
            1 => u64::MAX,
            2 => u64::MAX - rng.spread(40),
            3 => rng.next(),
            4 => now,
            // A few values again and again, for equal deadlines.
            5..=7 => (now | 0x3_ffff).saturating_add(rng.below(4) * 0x1_0001),
            8..=11 => now.saturating_add(rng.spread(20)),
            _ => now.saturating_add(rng.spread(45)),
        }
    }

    fn step(rng: &mut Rng, pair: &Pair) -> u64 {
        match rng.below(64) {
            0..=1 => pair.now,
            2..=40 => pair.now.saturating_add(rng.spread(17)),
            41..=50 => pair.wheel.next_wake().unwrap_or(0).max(pair.now),
            51..=62 => pair.now.saturating_add(rng.spread(27)),
            _ => pair.now.saturating_add(rng.spread(47)),
        }
    }

    fn random(seed: u64, start: u64, ops: u32) {
        let mut rng = Rng(seed);
        let mut pair = Pair::new(start);
        for op in 0..ops {
            match rng.below(8) {
                0..=3 => pair.insert(deadline(&mut rng, pair.now)),
                4..=5 => pair.remove(&mut rng),
                _ => pair.advance(step(&mut rng, &pair)),
            }
            pair.agree();
            if op % 64 == 0 {
                check(&pair.wheel);
            }
        }
        pair.advance(u64::MAX);
        pair.agree();
        check(&pair.wheel);
    }

    #[test]
    fn agrees_with_a_model() {
        let ops = if cfg!(miri) { 1_000 } else { 100_000 };
        random(0x9e37_79b9_7f4a_7c15, 0, ops);
        random(0x2545_f491_4f6c_dd1d, 123_456_789, ops);
        random(0xd1b5_4a32_d192_ed03, u64::MAX - (1 << 44), ops);
    }

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Option<Key>>(), 8);
        // A timer costs an entry and a cell.
        assert_eq!(size_of::<Entry<(u64, u64)>>(), 32);
        assert_eq!(size_of::<Entry<(Box<u8>, u64)>>(), 24);
        assert_eq!(size_of::<Cell>(), 16);
        assert_eq!(size_of::<Chunk>(), 256);
        assert_eq!(LEVELS, 8);
    }

    #[test]
    fn a_million_pending() {
        let count = if cfg!(miri) { 1_000 } else { 1_000_000 };
        let mut rng = Rng(42);
        let mut wheel = Wheel::new(7);
        let keys: Vec<Key> = (0..count).map(|seq| wheel.insert(rng.below(1 << 30), seq)).collect();
        for key in keys.iter().step_by(2) {
            assert!(wheel.remove(*key).is_some());
        }
        check(&wheel);
        let (mut last, mut seen) = ((0, 0), 0);
        for now in (0..=1 << 30).step_by(1 << 22) {
            wheel.expire(now, &mut |deadline, seq| {
                assert!(seq % 2 == 1 && (deadline, seq) > last && deadline <= now);
                last = (deadline, seq);
                seen += 1;
            });
            assert!(wheel.next_deadline().is_none_or(|deadline| deadline > now));
        }
        assert_eq!((seen, wheel.len()), (count / 2, 0));
    }

    #[test]
    fn equal_deadlines_fire_in_order_of_insertion_across_cascades() {
        let deadline = 5_000_000_123;
        let mut wheel = Wheel::new(0);
        let mut seq = 0;
        for now in (0..5_000_000_000).step_by(50_000_000) {
            assert_eq!(fired(&mut wheel, now), []);
            for _ in 0..3 {
                wheel.insert(deadline, seq);
                seq += 1;
            }
        }
        assert_eq!(fired(&mut wheel, deadline - 1), []);
        let order: Vec<i32> = fired(&mut wheel, deadline).into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(order, (0..seq).collect::<Vec<i32>>());
    }

    #[test]
    fn within_a_tick_the_deadline_is_exact() {
        let mut wheel = Wheel::new(0);
        for deadline in [900, 100, 500, 500, 70_000] {
            wheel.insert(deadline, ());
        }
        assert_eq!(wheel.next_wake(), Some(TICK - 1));
        assert_eq!(fired(&mut wheel, 99), []);
        assert_eq!(fired(&mut wheel, 100), [(100, ())]);
        assert_eq!(fired(&mut wheel, 899), [(500, ()), (500, ())]);
        assert_eq!(wheel.next_wake(), Some(900));
        assert_eq!(fired(&mut wheel, 900), [(900, ())]);
        assert_eq!(wheel.next_wake(), Some(70_000));
    }

    #[test]
    fn huge_deadlines() {
        let mut wheel = Wheel::new(0);
        wheel.insert(u64::MAX, 2);
        wheel.insert(u64::MAX - 1, 0);
        wheel.insert(u64::MAX, 3);
        wheel.insert(u64::MAX - 1, 1);
        assert_eq!(wheel.next_deadline(), Some(u64::MAX - 1));
        assert_eq!(fired(&mut wheel, u64::MAX - 2), []);
        assert_eq!(wheel.next_wake(), Some(u64::MAX));
        assert_eq!(fired(&mut wheel, u64::MAX - 1), [(u64::MAX - 1, 0), (u64::MAX - 1, 1)]);
        assert_eq!(fired(&mut wheel, u64::MAX), [(u64::MAX, 2), (u64::MAX, 3)]);
        wheel.insert(u64::MAX, 4);
        wheel.insert(1, 5);
        assert_eq!(fired(&mut wheel, u64::MAX), [(1, 5), (u64::MAX, 4)]);
    }

    #[test]
    fn a_stale_key_names_nothing() {
        let mut wheel = Wheel::new(0);
        let first = wheel.insert(10, 'a');
        assert_eq!(wheel.remove(first), Some('a'));
        let second = wheel.insert(10, 'b');
        assert_eq!(first.index, second.index);
        assert_eq!((wheel.remove(first), wheel.get(first)), (None, None));
        assert_eq!(fired(&mut wheel, 10), [(10, 'b')]);
        assert_eq!((wheel.remove(second), wheel.get(second)), (None, None));
        wheel.generation = NonZeroU32::MAX;
        let (last, wrapped) = (wheel.insert(20, 'c'), wheel.insert(20, 'd'));
        assert_eq!((wheel.get(last), wheel.get(wrapped)), (Some(&'c'), Some(&'d')));
        assert_eq!(wrapped.generation, NonZeroU32::MIN);
        assert_eq!(fired(&mut wheel, 20), [(20, 'c'), (20, 'd')]);
    }

    #[test]
    fn time_may_stand_still_or_go_back() {
        let mut wheel = Wheel::new(1_000_000);
        wheel.insert(1_000_000, 'a');
        wheel.insert(5, 'b');
        assert_eq!(wheel.next_wake(), Some(1_000_000));
        assert_eq!(fired(&mut wheel, 0), [(5, 'b'), (1_000_000, 'a')]);
        let (one, two) = (wheel.insert(3, 'c'), wheel.insert(2_000_000, 'd'));
        assert_eq!(wheel.next_wake(), Some(1_000_000));
        assert_eq!(wheel.remove(one), Some('c'));
        assert_eq!(wheel.next_wake(), Some(2_000_000));
        assert_eq!(fired(&mut wheel, 1_000_000), []);
        assert_eq!(wheel.remove(two), Some('d'));
        assert_eq!((wheel.next_wake(), wheel.next_deadline()), (None, None));
    }

    #[test]
    fn memory_of_a_peak_is_given_back() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<Key> = (0..10_000).map(|at| wheel.insert(at, at)).collect();
        assert_eq!(fired(&mut wheel, 9_999).len(), 10_000);
        assert_eq!(
            (
                wheel.entries.capacity(),
                wheel.chunks.capacity(),
                wheel.scratch.capacity()
            ),
            (0, 0, 0)
        );
        let again: Vec<Key> = (0..10_000).map(|at| wheel.insert(20_000, at)).collect();
        assert!(keys.iter().all(|&key| wheel.remove(key).is_none()));
        assert!(again.iter().all(|&key| wheel.remove(key).is_some()));
        assert_eq!(wheel.entries.capacity(), 0);
        wheel.insert(30_000, 0);
        assert_eq!(fired(&mut wheel, 30_000), [(30_000, 0)]);
        assert!(wheel.entries.capacity() > 0, "a small slab is kept");
    }

    #[test]
    fn a_panic_loses_the_fired_one_only() {
        let mut wheel = Wheel::new(0);
        for at in 0..100 {
            wheel.insert(at * 30_000, at);
        }
        let fire = |wheel: &mut Wheel<u64>| {
            wheel.expire(10_000_000, &mut |_, at| assert_ne!(at, 50));
        };
        assert!(catch_unwind(AssertUnwindSafe(|| fire(&mut wheel))).is_err());
        check(&wheel);
        assert_eq!((wheel.len(), wheel.next_deadline()), (49, Some(51 * 30_000)));
        let order: Vec<u64> = fired(&mut wheel, 10_000_000).into_iter().map(|(_, at)| at).collect();
        assert_eq!(order, (51..100).collect::<Vec<u64>>());
        assert!(format!("{wheel:?}").starts_with("Wheel { now: 10000000, len: 0"));
    }
}
