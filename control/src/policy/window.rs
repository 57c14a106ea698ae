//! Hours of the week.

/// Seconds of a day and of a week.
pub(super) const DAY: u32 = 86_400;
const WEEK: u64 = 7 * DAY as u64;
/// The first of January 1970 was a Thursday; weeks begin on Mondays here.
const EPOCH_DAY: u64 = 3;

/// A stretch of one day, on some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bit 0 is Monday.
    pub days: u8,
    /// Second of the day.
    pub from: u32,
    /// The second of the day after its last.
    pub to: u32,
}

impl Window {
    /// Whether two of them have a moment in common.
    pub fn overlaps(&self, other: &Window) -> bool {
        self.days & other.days != 0 && self.from < other.to && other.from < self.to
    }

    fn holds(&self, second_of_week: u64) -> bool {
        let (day, second) = (second_of_week / u64::from(DAY), (second_of_week % u64::from(DAY)) as u32);
        self.days >> day & 1 == 1 && (self.from..self.to).contains(&second)
    }
}

/// Hours of the week, each stretch with something that counts in it; no two of them overlap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Windows<T>(Vec<(Window, T)>);

impl<T> Windows<T> {
    /// These; whoever made them saw to it that they do not overlap.
    pub fn new(list: Vec<(Window, T)>) -> Windows<T> {
        Windows(list)
    }

    /// The place of the one that counts at a time, seconds since 1970 in the site's time.
    pub fn at(&self, local: u64) -> Option<(usize, &T)> {
        let second = (local + EPOCH_DAY * u64::from(DAY)) % WEEK;
        self.0.iter().enumerate().find(|(_, (window, _))| window.holds(second)).map(|(at, (_, it))| (at, it))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(Window, T)> {
        self.0.iter()
    }
}

/// `08:30` as a second of the day; `24:00` is its end.
pub(super) fn time_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| two)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let second = hours * 3600 + minutes * 60;
    (minutes < 60 && second <= DAY).then_some(second)
}

/// `+01:00` as seconds.
pub(super) fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let seconds = time_of_day(rest).filter(|seconds| *seconds <= 14 * 3600)?;
    Some(sign * i32::try_from(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_the_week_are_found() {
        // 2026-11-23 00:00 UTC, a Monday.
        const MONDAY: u64 = 1_795_392_000;
        let window = |days, from: u32, to: u32| Window { days, from: from * 3600, to: to * 3600 };
        let windows = Windows::new(vec![(window(0b001_1111, 8, 18), 'w'), (window(0b110_0000, 0, 24), 'e')]);
        let at = |day: u64, hour: u64| windows.at(MONDAY + day * 86_400 + hour * 3600).map(|(_, it)| *it);
        assert_eq!([at(0, 7), at(0, 8), at(0, 17), at(0, 18)], [None, Some('w'), Some('w'), None]);
        assert_eq!([at(4, 12), at(5, 0), at(6, 23), at(7, 0)], [Some('w'), Some('e'), Some('e'), None]);
        assert!(!window(1, 8, 12).overlaps(&window(1, 12, 13)) && !window(1, 8, 12).overlaps(&window(2, 8, 12)));
        assert!(window(3, 8, 12).overlaps(&window(2, 11, 13)));
    }

    #[test]
    fn times_are_written_in_one_way() {
        assert_eq!(["00:00", "08:30", "24:00"].map(time_of_day), [Some(0), Some(30_600), Some(DAY)]);
        assert_eq!(["8:30", "24:01", "12:60", "1200", "+1:00", ""].map(time_of_day), [None; 6]);
        assert_eq!(["+01:00", "-05:30", "+14:00"].map(offset), [Some(3600), Some(-19_800), Some(50_400)]);
        assert_eq!(["01:00", "+15:00", "+1", "", "é1:00"].map(offset), [None; 5]);
    }
}
