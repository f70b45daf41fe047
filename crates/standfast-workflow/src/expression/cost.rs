//! Bounds as polynomials: how many outputs an expression has, how large they are and how much work they take, in terms of the size
//! of its input.

use std::ops::{Add, Mul};

/// Highest power of a size in a bound. What grows faster is no longer told apart from what has no bound.
const DEGREE_MAX: usize = 4;

/// An upper bound for any input of size `s`: `c0 + c1·s + c2·s² + …`, where no coefficient is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound([f64; DEGREE_MAX + 1]);

impl Bound {
    pub(super) const ZERO: Self = Self::constant(0.0);
    pub(super) const ONE: Self = Self::constant(1.0);
    /// The size of the input itself.
    pub(super) const SIZE: Self = Self([0.0, 1.0, 0.0, 0.0, 0.0]);

    pub(super) const fn constant(value: f64) -> Self {
        Self([value, 0.0, 0.0, 0.0, 0.0])
    }

    /// What is above this bound and the other.
    #[must_use]
    pub(super) fn join(self, other: Self) -> Self {
        Self(std::array::from_fn(|power| self.0[power].max(other.0[power])))
    }

    /// The bound for inputs that are themselves as large as `size` says.
    #[must_use]
    pub(super) fn of(self, size: Self) -> Self {
        self.0.iter().rev().fold(Self::ZERO, |sum, coefficient| sum * size + Self::constant(*coefficient))
    }

    /// The sum of this bound over `count` inputs, each of at most the size `each`, and all of them together of at most `total`.
    ///
    /// For power one or more: the sum of `x^j` is at most `each^(j-1)` times the sum of `x`.
    #[must_use]
    pub(super) fn over(self, count: Self, each: Self, total: Self) -> Self {
        let mut sum = Self::constant(self.0[0]) * count;
        let mut power = total;
        for coefficient in &self.0[1..] {
            if *coefficient > 0.0 {
                sum = sum + power * *coefficient;
            }
            power = power * each;
        }
        sum
    }

    /// Its value at a size.
    pub(super) fn at(self, size: f64) -> f64 {
        let mut power = 1.0;
        let mut sum = 0.0;
        for coefficient in self.0 {
            if coefficient > 0.0 {
                sum += coefficient * power;
            }
            power *= size;
        }
        sum
    }
}

impl Add for Bound {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|power| self.0[power] + other.0[power]))
    }
}

impl Mul<f64> for Bound {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self * Self::constant(factor)
    }
}

impl Mul for Bound {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let mut product = Self::ZERO;
        for (power, left) in self.0.iter().enumerate().filter(|(_, left)| **left > 0.0) {
            for (more, right) in other.0.iter().enumerate().filter(|(_, right)| **right > 0.0) {
                match product.0.get_mut(power + more) {
                    Some(coefficient) => *coefficient += left * right,
                    None => product.0[0] = f64::INFINITY,
                }
            }
        }
        product
    }
}

/// What one evaluation of an expression comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow {
    /// How many outputs it has.
    pub(super) count: Bound,
    /// How large each of them is.
    pub(super) each: Bound,
    /// How large all of them are together.
    pub(super) total: Bound,
    /// How much work it takes to get all of them. No value on the way is larger than this, the input and a variable together: whatever
    /// makes a value counts its size as work.
    pub(super) work: Bound,
}

impl Flow {
    /// One output of this size, for this work and that of making it.
    pub(super) fn one(each: Bound, work: Bound) -> Self {
        Self { count: Bound::ONE, each, total: each, work: work + each }
    }

    /// As many outputs, each of this size.
    pub(super) fn many(count: Bound, each: Bound, work: Bound) -> Self {
        Self { count, each, total: count * each, work }
    }

    /// `self | next`, where `next` is in terms of what it gets.
    #[must_use]
    pub(super) fn then(self, next: Self) -> Self {
        let over = |bound: Bound| bound.over(self.count, self.each, self.total);
        Self {
            count: over(next.count),
            each: next.each.of(self.each),
            total: over(next.total),
            work: self.work + over(next.work),
        }
    }

    /// One of both, nobody knows which.
    #[must_use]
    pub(super) fn join(self, other: Self) -> Self {
        Self {
            count: self.count.join(other.count),
            each: self.each.join(other.each),
            total: self.total.join(other.total),
            work: self.work.join(other.work),
        }
    }

    /// The outputs of both, one after the other.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            each: self.each.join(other.each),
            total: self.total + other.total,
            work: self.work + other.work,
        }
    }

    /// This flow once for each of so many.
    #[must_use]
    pub(super) fn times(self, count: Bound) -> Self {
        Self {
            count: self.count * count,
            each: self.each,
            total: self.total * count,
            work: self.work * count,
        }
    }

    #[must_use]
    pub(super) fn plus_work(self, work: Bound) -> Self {
        Self { work: self.work + work, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_above_what_they_bound() {
        let square = Bound::SIZE * Bound::SIZE + Bound::constant(3.0);
        assert!((square.at(10.0) - 103.0).abs() < 1e-9);
        assert!((square.of(Bound::SIZE * 2.0).at(5.0) - 103.0).abs() < 1e-9);
        assert!((square.join(Bound::SIZE * 7.0).at(1.0) - 11.0).abs() < 1e-9);
        // Ten inputs, the largest of size 4, of size 20 together: 10·3 + 20·4.
        let sum = square.over(Bound::constant(10.0), Bound::constant(4.0), Bound::constant(20.0));
        assert!((sum.at(0.0) - 110.0).abs() < 1e-9);
    }

    #[test]
    fn what_grows_too_fast_has_no_bound() {
        let square = Bound::SIZE * Bound::SIZE;
        assert!((square * square).at(2.0).is_finite());
        assert!((square * square * Bound::SIZE).at(2.0).is_infinite());
        assert!((square * square * Bound::SIZE * Bound::ZERO).at(2.0).abs() < 1e-9);
    }
}
