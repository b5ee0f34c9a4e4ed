//! How far requantised weights are from the ones they replace.

/// Differences between weights and their stored form, gathered over any number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    count: u64,
    max_abs: f32,
    squared_error: f64,
    squared_weight: f64,
}

impl Deviation {
    /// Adds weights and what became of them, `[n]` f32 each.
    ///
    /// # Panics
    /// The slices differ in length.
    pub fn add(&mut self, weights: &[f32], stored: &[f32]) {
        assert_eq!(weights.len(), stored.len(), "weights and stored weights are compared one by one");
        self.count += weights.len() as u64;
        for (&w, &s) in weights.iter().zip(stored) {
            let error = s - w;
            self.max_abs = self.max_abs.max(error.abs());
            self.squared_error += f64::from(error) * f64::from(error);
            self.squared_weight += f64::from(w) * f64::from(w);
        }
    }

    /// Adds what another has gathered.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.squared_error += other.squared_error;
        self.squared_weight += other.squared_weight;
    }

    /// Largest absolute difference.
    pub fn max_abs(&self) -> f32 {
        self.max_abs
    }

    /// Root of the mean squared difference; 0 when nothing was added.
    pub fn rms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squared_error / self.count as f64).sqrt() }
    }

    /// Root mean square of the differences over that of the weights; 0 when there is no difference.
    pub fn relative_rms(&self) -> f64 {
        if self.squared_error == 0.0 { 0.0 } else { (self.squared_error / self.squared_weight).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_those_of_all_rows() {
        let mut all = Deviation::default();
        assert_eq!((all.rms(), all.relative_rms()), (0.0, 0.0));
        all.add(&[3.0, 4.0], &[3.0, 4.0]);
        let mut other = Deviation::default();
        other.add(&[0.0, 0.0], &[1.0, -3.0]);
        all.merge(&other);
        assert_eq!(all.max_abs(), 3.0);
        assert_eq!(all.rms(), (10.0f64 / 4.0).sqrt());
        assert_eq!(all.relative_rms(), (10.0f64 / 25.0).sqrt());
    }
}
