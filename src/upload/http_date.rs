//! Dates as HTTP writes them (RFC 9110, section 5.6.7).
#![forbid(unsafe_code)]

/// Unix seconds of an HTTP date, in any of the three forms that a recipient must accept. `None` for anything else
/// and for dates before 1970.
///
/// `now` (Unix seconds) resolves the two-digit year of the RFC 850 form.
pub fn parse(text: &str, now: u64) -> Option<u64> {
    let words: Vec<&str> = text.trim().split([' ', ',', '-']).filter(|w| !w.is_empty()).collect();
    match *words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [_, day, month, year, time, "GMT"] if year.len() == 4 => {
            unix(number(year)?, month_of(month)?, number(day)?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [_, day, month, year, time, "GMT"] if year.len() == 2 => {
            let this_year = year_of(now);
            let mut year = this_year.checked_sub(this_year % 100)?.checked_add(number(year)?)?;
            // A date that seems more than 50 years ahead is in the past.
            if year > this_year.checked_add(50)? {
                year = year.checked_sub(100)?;
            }
            unix(year, month_of(month)?, number(day)?, time)
        }
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] if year.len() == 4 => {
            unix(number(year)?, month_of(month)?, number(day)?, time)
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn month_of(name: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    MONTHS.iter().position(|m| *m == name).and_then(|i| u64::try_from(i).ok()).map(|i| i + 1)
}

fn year_of(unix: u64) -> u64 {
    // Within a day of New Year this may be off by one, which only moves the 50-year rule.
    1970 + unix / 31_556_952
}

fn unix(year: u64, month: u64, day: u64, time: &str) -> Option<u64> {
    let mut parts = time.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some()
        || !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days from civil date, counting years from March so that the leap day comes last
    // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_the_standard() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(text, 1_700_000_000), Some(784_111_777), "{text}");
        }
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT", 0), Some(0));
        assert_eq!(parse("Thu, 29 Feb 2024 12:00:00 GMT", 0), Some(1_709_208_000));
        assert_eq!(parse("Friday, 31-Dec-27 23:59:59 GMT", 1_700_000_000), Some(1_830_297_599));
    }

    #[test]
    fn nothing_else() {
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1600 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        ] {
            assert_eq!(parse(text, 0), None, "{text}");
        }
    }
}
