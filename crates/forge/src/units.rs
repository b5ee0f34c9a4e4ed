//! Numbers as people read them.

/// `1.5 GiB`, `340 KiB`, `12 bytes`.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

/// `5.2 M`, `7.2 B`, `195 K`: counts of parameters.
pub fn parameters(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "K", "M", "B", "T"]).trim_end().to_owned()
}

/// `1.5 G`, `340 M`, `12`: counts of operations.
pub fn count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "K", "M", "G", "T", "P"]).trim_end().to_owned()
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // The limit lies where one decimal would round up to the next unit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 99.95);
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, parameters};

    #[test]
    fn units_change_at_their_step() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(150 * 1024 * 1024), "150 MiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!(parameters(5_246_208), "5.2 M");
        assert_eq!(parameters(999), "999");
        assert_eq!(count(15_000_000_000), "15.0 G");
    }
}
