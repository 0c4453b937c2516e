//! Sets of address families, and values for each.

use margay_model::Family;
use serde::Serialize;

/// A value for each address family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct PerFamily<T> {
    /// For IPv4 unicast.
    pub v4: T,
    /// For IPv6 unicast.
    pub v6: T,
}

/// A set of address families, all unicast.
pub type Families = PerFamily<bool>;

impl<T> PerFamily<T> {
    /// The value for a family.
    #[must_use]
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value for a family, to change it.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Makes a value for each family.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        Self {
            v4: make(Family::V4),
            v6: make(Family::V6),
        }
    }
}

impl Families {
    /// IPv4 alone.
    pub const V4: Self = Self {
        v4: true,
        v6: false,
    };
    /// IPv6 alone.
    pub const V6: Self = Self {
        v4: false,
        v6: true,
    };
    /// Both.
    pub const BOTH: Self = Self { v4: true, v6: true };
    /// None.
    pub const NONE: Self = Self {
        v4: false,
        v6: false,
    };

    /// Whether the family is in the set.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        *self.get(family)
    }

    /// The families of the set.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        FAMILIES.into_iter().filter(move |family| self.has(*family))
    }

    /// The families in both sets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.v4 && !self.v6
    }
}

/// All families.
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
