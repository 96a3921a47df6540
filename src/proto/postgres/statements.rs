//! What is known of statements: their types, for the whole endpoint, and under which name each conn has them prepared.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use super::scram::Salted;
use super::types::{Oid, Types};
use super::wire::Fields;
use crate::value::write;

/// The text of a statement.
pub type Text = Arc<[u8]>;

/// A map of so many entries at most: the one that was used longest ago leaves.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    clock: u64,
    entries_max: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub fn new(entries_max: usize) -> Self {
        Recent { entries: HashMap::new(), clock: 0, entries_max }
    }

    #[inline]
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    /// Returns what had to leave.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.clock += 1;
        let replaced = self.entries.insert(key.clone(), (self.clock, value));
        if let Some((_, value)) = replaced {
            return Some((key, value));
        }
        if self.entries.len() <= self.entries_max {
            return None;
        }
        let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())?;
        self.entries.remove_entry(&oldest).map(|(key, (_, value))| (key, value))
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.remove(key).map(|(_, value)| value)
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    pub fn drain(&mut self) -> impl Iterator<Item = V> + '_ {
        self.entries.drain().map(|(_, (_, value))| value)
    }
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Box<[u8]>,
    pub oid: Oid,
    pub format: i16,
}

/// The columns of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub all: Vec<Column>,
    /// `[[name, type], ...]` as MessagePack.
    pub told: Vec<u8>,
}

impl Columns {
    /// Of a statement without rows.
    pub fn nothing() -> Self {
        Columns { all: Vec::new(), told: vec![0x90] }
    }

    /// A RowDescription. None: it ends too soon.
    pub fn read(body: &[u8]) -> Option<Vec<Column>> {
        let mut fields = Fields(body);
        let count = fields.count()?;
        let mut all = Vec::new();
        for _ in 0..count {
            let name = fields.text()?.into();
            // The table, the column in it; after the type its size and its modifier.
            fields.take(6)?;
            let oid = fields.uint32()?;
            fields.take(6)?;
            all.push(Column { name, oid, format: fields.int16()? });
        }
        fields.0.is_empty().then_some(all)
    }

    /// `asked`: in which format Bind will ask for each; None: they come as described.
    pub fn new(mut all: Vec<Column>, types: &Types, asked: bool) -> Self {
        let mut told = Vec::new();
        write::array(&mut told, all.len() as u32);
        for column in &mut all {
            if asked {
                column.format = types.format(column.oid);
            }
            write::array(&mut told, 2);
            write::str(&mut told, &column.name);
            write::str(&mut told, types.name(column.oid).as_bytes());
        }
        Columns { all, told }
    }
}

/// What the server told of a statement.
#[derive(Debug)]
pub struct Description {
    pub text: Text,
    pub parameters: Vec<Oid>,
    pub columns: Columns,
    /// What Bind says of the formats of the columns: one for all where they agree.
    pub formats: Vec<i16>,
}

impl Description {
    pub fn new(text: Text, parameters: Vec<Oid>, columns: Vec<Column>, types: &Types) -> Self {
        let columns = Columns::new(columns, types, true);
        let mut formats: Vec<i16> = columns.all.iter().map(|column| column.format).collect();
        if formats.windows(2).all(|pair| pair[0] == pair[1]) {
            formats.truncate(1);
        }
        Description { text, parameters, columns, formats }
    }
}

/// What all conns of an endpoint know together.
pub struct Known {
    pub types: Types,
    pub statements: Recent<Text, Arc<Description>>,
    /// How often what statements are about has been defined anew: what was prepared before that may not do any more.
    pub definitions: u64,
    pub salted: Option<Salted>,
}

impl Known {
    /// Tables and the like were defined anew.
    pub fn redefined(&mut self) {
        self.definitions += 1;
        self.statements.clear();
    }
}

/// Whether a statement of this tag may change what others give.
pub fn redefines(tag: &[u8]) -> bool {
    [&b"ALTER"[..], b"DROP", b"CREATE VIEW"].iter().any(|word| tag.starts_with(word))
}

/// See [`Known`].
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub fn new(statements_max: usize) -> Self {
        let statements = Recent::new(statements_max);
        Shared(Arc::new(Mutex::new(Known { types: Types::new(), statements, definitions: 0, salted: None })))
    }

    /// Conns of an endpoint take turns, so nobody waits here.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A statement that a conn has prepared.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its name. 0: unnamed.
    pub number: u64,
    pub description: Arc<Description>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves() {
        let mut recent: Recent<Text, u32> = Recent::new(2);
        let text = |text: &str| -> Text { text.as_bytes().into() };
        assert_eq!(recent.insert(text("a"), 1), None);
        assert_eq!(recent.insert(text("b"), 2), None);
        assert_eq!(recent.get(&b"a"[..]).copied(), Some(1));
        assert_eq!(recent.insert(text("c"), 3), Some((text("b"), 2)));
        assert_eq!(recent.insert(text("a"), 4), Some((text("a"), 1)), "replaced");
        assert_eq!(recent.remove(&b"a"[..]), Some(4));
        assert_eq!(recent.get(&b"b"[..]), None);
    }
}
