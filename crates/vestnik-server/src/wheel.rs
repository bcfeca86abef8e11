//! One timer wheel per shard, in seconds: pings, deadlines of closing connections, presence of polls.

/// Deadlines of a shard. Entries are not taken out when they lose their meaning: whoever is woken
/// looks whether its time has really come.
pub(crate) struct Wheel<T> {
    slots: Box<[Vec<T>]>,
    /// The second that was handed out last.
    now_s: u64,
}

impl<T> Wheel<T> {
    /// The longest delay in seconds; longer ones become this. Above every time that can be configured:
    /// pings of an hour ([`crate::options::Timing::PING_MAX`]).
    pub(crate) const SPAN_S: u64 = 4095;

    pub(crate) fn new(now_s: u64) -> Self {
        let slots = (0..=Self::SPAN_S).map(|_| Vec::new()).collect();
        Self { slots, now_s }
    }

    /// Wakes `entry` after `delay_s` seconds, at least one.
    pub(crate) fn add(&mut self, delay_s: u64, entry: T) {
        let slot = self.slot(self.now_s + delay_s.clamp(1, Self::SPAN_S));
        self.slots[slot].push(entry);
    }

    /// Hands out all entries due until `now_s`, the second of their deadline with each.
    pub(crate) fn advance(&mut self, now_s: u64, mut due: impl FnMut(&mut Self, T)) {
        while self.now_s < now_s {
            self.now_s += 1;
            let slot = self.slot(self.now_s);
            // The slot's memory is given back: its next turn is an hour away, and if every slot kept
            // some, the process would grow all that time.
            for entry in std::mem::take(&mut self.slots[slot]) {
                due(self, entry);
            }
        }
    }

    fn slot(&self, second: u64) -> usize {
        usize::try_from(second % (Self::SPAN_S + 1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_in_the_second_they_are_due_and_once() {
        let mut wheel = Wheel::new(1000);
        for delay in [0, 1, 2, 120, 3600, 9999] {
            wheel.add(delay, delay);
        }
        let mut seen = Vec::new();
        for now in 1001..6000 {
            wheel.advance(now, |_, delay| seen.push((now - 1000, delay)));
        }
        assert_eq!(seen, [(1, 0), (1, 1), (2, 2), (120, 120), (3600, 3600), (4095, 9999)]);
    }

    #[test]
    fn slots_whose_time_is_over_keep_no_memory() {
        let mut wheel = Wheel::new(0);
        for now in 1..10_000 {
            (0..10).for_each(|entry| wheel.add(120, entry));
            wheel.advance(now, |_, _| {});
        }
        let kept = wheel.slots.iter().filter(|slot| slot.capacity() > 0).count();
        assert!(kept <= 121, "{kept}");
    }

    #[test]
    fn an_entry_may_be_put_back_while_it_comes_out() {
        let mut wheel = Wheel::new(0);
        wheel.add(1, ());
        let mut count = 0;
        wheel.advance(100, |wheel, ()| {
            count += 1;
            wheel.add(10, ());
        });
        assert_eq!(count, 10);
    }
}
