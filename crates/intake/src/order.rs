//! Which queue is served next. Pure.
//!
//! Without fairness the order of the queues is their priority: after every task the search starts at the
//! first queue again. With fairness every queue gives at most one task per pass, round robin.

/// Chooses queues, by their position in the list that the daemon was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOrder {
    fairness: bool,
    next: usize,
    pulled_in_pass: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Pop from this queue.
    Serve(usize),
    /// A pass is over and something was pulled in it: look again at once.
    NextPass,
    /// Nothing to pull: sleep.
    Idle,
}

impl QueueOrder {
    /// Starts at the first queue.
    #[must_use]
    pub fn new(fairness: bool) -> Self {
        Self {
            fairness,
            next: 0,
            pulled_in_pass: false,
        }
    }

    /// The next queue to serve. `ready[i]` says that queue `i` has a task and may be asked now.
    pub fn choose(&mut self, ready: &[bool]) -> Choice {
        let found = (self.next..ready.len()).find(|&index| ready[index]);
        if let Some(index) = found {
            self.next = index;
            return Choice::Serve(index);
        }
        self.next = 0;
        if std::mem::take(&mut self.pulled_in_pass) {
            Choice::NextPass
        } else {
            Choice::Idle
        }
    }

    /// Queue `index` gave a task.
    pub fn pulled(&mut self, index: usize) {
        self.pulled_in_pass = self.fairness;
        self.next = if self.fairness { index + 1 } else { 0 };
    }

    /// Queue `index` gave nothing after all: try those after it.
    pub fn passed_over(&mut self, index: usize) {
        self.next = index + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves queues with these numbers of tasks until idle, and returns the order of service.
    fn serve(fairness: bool, mut waiting: Vec<u32>) -> Vec<usize> {
        let mut order = QueueOrder::new(fairness);
        let mut served = Vec::new();
        loop {
            let ready: Vec<bool> = waiting.iter().map(|&tasks| tasks > 0).collect();
            match order.choose(&ready) {
                Choice::Serve(index) => {
                    waiting[index] -= 1;
                    served.push(index);
                    order.pulled(index);
                }
                Choice::NextPass => {}
                Choice::Idle => return served,
            }
        }
    }

    #[test]
    fn priority_empties_the_first_queue_before_the_second() {
        assert_eq!(serve(false, vec![2, 0, 3]), [0, 0, 2, 2, 2]);
    }

    #[test]
    fn fairness_takes_one_from_each_in_turn() {
        assert_eq!(serve(true, vec![3, 1, 2]), [0, 1, 2, 0, 2, 0]);
    }

    #[test]
    fn a_high_priority_task_that_arrives_meanwhile_comes_first() {
        let mut order = QueueOrder::new(false);
        assert_eq!(order.choose(&[false, true]), Choice::Serve(1));
        order.pulled(1);
        assert_eq!(order.choose(&[true, true]), Choice::Serve(0));
    }

    #[test]
    fn a_queue_that_fails_does_not_hide_those_behind_it() {
        for fairness in [false, true] {
            let mut order = QueueOrder::new(fairness);
            assert_eq!(order.choose(&[true, true]), Choice::Serve(0));
            order.passed_over(0);
            assert_eq!(order.choose(&[true, true]), Choice::Serve(1));
            order.passed_over(1);
            assert_eq!(
                order.choose(&[true, true]),
                Choice::Idle,
                "a pass without success must end in sleep"
            );
            assert_eq!(order.choose(&[true, true]), Choice::Serve(0));
        }
    }
}
