//! The one that hears: takes each batch once and in order.

/// What was said cannot be. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Something is missing in between.
    #[error("batch {came} came and {expected} was to come")]
    Gap {
        /// Its number.
        came: u64,
        /// The one expected.
        expected: u64,
    },
    /// Something came before it was said what, or a beginning that does not go on where it ended.
    #[error("it does not begin where it ended")]
    Beginning,
}

/// Hears one box.
#[derive(Debug, Default)]
pub struct Hearer {
    /// The life of the one that tells.
    teller: Option<u64>,
    /// Batches up to this number were taken in.
    heard: u64,
    begun: bool,
    /// Batches taken in, and those that came once more.
    pub(super) received: u64,
    pub(super) repeated: u64,
}

impl Hearer {
    /// Somebody who tells has come. How much of its life has been heard.
    pub fn greeted(&mut self, life: u64) -> Option<u64> {
        self.begun = false;
        if self.teller == Some(life) {
            return Some(self.heard);
        }
        self.teller = Some(life);
        self.heard = 0;
        None
    }

    /// It begins.
    ///
    /// # Errors
    /// It cannot go on from there.
    pub fn begin(&mut self, fresh: bool, first: u64) -> Result<(), Broken> {
        if fresh {
            self.heard = first.saturating_sub(1);
        } else if first == 0 || first > self.heard.saturating_add(1) {
            return Err(Broken::Beginning);
        }
        self.begun = true;
        Ok(())
    }

    /// A batch has come. Whether it is to be taken in; otherwise it was before.
    ///
    /// # Errors
    /// It is not the next one.
    pub fn batch(&mut self, number: u64) -> Result<bool, Broken> {
        if !self.begun {
            return Err(Broken::Beginning);
        }
        if number <= self.heard {
            self.repeated += 1;
            return Ok(false);
        }
        if number > self.heard.saturating_add(1) {
            return Err(Broken::Gap { came: number, expected: self.heard.saturating_add(1) });
        }
        self.heard = number;
        self.received += 1;
        Ok(true)
    }

    /// Nothing more has come, and the next batch will have this number.
    ///
    /// # Errors
    /// There was one that did not come, or nothing has begun.
    pub fn alive(&self, next: u64) -> Result<(), Broken> {
        if !self.begun {
            return Err(Broken::Beginning);
        }
        if next <= self.heard.saturating_add(1) {
            return Ok(());
        }
        Err(Broken::Gap { came: next, expected: self.heard.saturating_add(1) })
    }

    /// What has been taken in.
    pub fn heard(&self) -> u64 {
        self.heard
    }
}
