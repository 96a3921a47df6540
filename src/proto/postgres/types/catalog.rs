//! What is learnt of one server: types that its databases define.

use super::kind::Kind;
use super::{LEARNT_MAX, Learnt, Oid, Types, table};

impl Types {
    /// Asks the catalog for types by oid, and for all that they consist of. For the simple protocol, with `{OIDS}`
    /// replaced by oids with commas between them; each row of the reply is for [`Types::learn`]. A type that the catalog
    /// does not have gets a row of its oid and NULLs.
    ///
    /// `rngmultitypid` is read through jsonb, since it is there from PostgreSQL 14 on.
    pub const QUERY: &'static str = "\
        WITH RECURSIVE asked(oid) AS (\
        SELECT unnest('{{OIDS}}'::oid[]) \
        UNION \
        SELECT part.oid FROM asked JOIN pg_catalog.pg_type t ON t.oid = asked.oid CROSS JOIN LATERAL (\
        SELECT t.typelem AS oid WHERE t.typcategory = 'A' AND t.typelem <> 0 \
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd' \
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.typtype = 'r' AND r.rngtypid = t.oid \
        UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE t.typtype = 'm' \
        AND (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid \
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' \
        AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) part) \
        SELECT asked.oid, t.typname, t.typtype, t.typcategory, t.typdelim, t.typelem, t.typbasetype, \
        CASE t.typtype WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) \
        WHEN 'm' THEN (SELECT r.rngtypid FROM pg_catalog.pg_range r \
        WHERE (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid) END, \
        CASE t.typtype WHEN 'c' THEN (SELECT pg_catalog.string_agg(a.atttypid::text, ' ' ORDER BY a.attnum) \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END \
        FROM asked LEFT JOIN pg_catalog.pg_type t ON t.oid = asked.oid";

    /// Those of these types, and of all that they consist of, that must be asked for; each once.
    pub fn missing(&self, oids: impl Iterator<Item = Oid>) -> Vec<Oid> {
        let mut missing = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut open: Vec<Oid> = oids.collect();
        while let Some(oid) = open.pop() {
            // 0 is no type: the server did not say.
            if oid == 0 || table::built_in(oid).is_some() || !seen.insert(oid) {
                continue;
            }
            match self.learnt.get(&oid) {
                None => missing.push(oid),
                Some(learnt) => match learnt.kind {
                    Kind::Array(part) | Kind::Domain(part) | Kind::Range(part) | Kind::Multirange(part) => {
                        open.push(part);
                    }
                    _ => open.extend(&learnt.fields),
                },
            }
        }
        missing.sort_unstable();
        missing
    }

    /// One row of [`Types::QUERY`]: oid, name, typtype, category, delimiter, element, base, subtype (of a multirange its
    /// range), oids of the fields with blanks between them. A type that the catalog does not have is text.
    pub fn learn(&mut self, row: &[Option<&[u8]>]) -> Result<(), String> {
        let &[oid, name, class, category, delimiter, element, base, subtype, fields] = row else {
            return Err(format!("catalog of types: a row of {} columns given, 9 expected", row.len()));
        };
        let oid = number("oid", oid)?;
        if table::built_in(oid).is_some() {
            return Ok(());
        }
        if self.learnt.len() >= LEARNT_MAX && !self.learnt.contains_key(&oid) {
            return Err(format!("type {oid}: {LEARNT_MAX} types were learnt, which is as many as are kept"));
        }
        let mut learnt = Learnt { name: "unknown".into(), kind: Kind::Spelled, delimiter: b',', fields: [].into() };
        if let Some(name) = name {
            learnt.name = String::from_utf8_lossy(name).into();
            learnt.delimiter = delimiter.and_then(|text| text.first()).copied().unwrap_or(b',');
            learnt.kind = match (class, category) {
                (Some(b"b"), Some(b"A")) if element != Some(b"0") => Kind::Array(number("element", element)?),
                (Some(b"e"), _) => Kind::Text,
                (Some(b"d"), _) => Kind::Domain(number("base", base)?),
                (Some(b"r"), _) => Kind::Range(number("subtype", subtype)?),
                (Some(b"m"), _) => Kind::Multirange(number("range", subtype)?),
                (Some(b"c"), _) => Kind::Composite,
                _ => Kind::Spelled,
            };
            if learnt.kind == Kind::Composite {
                let words = fields.unwrap_or_default().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                learnt.fields = words.map(|word| number("field", Some(word))).collect::<Result<_, _>>()?;
            }
        }
        self.learnt.insert(oid, learnt);
        Ok(())
    }
}

fn number(what: &str, text: Option<&[u8]>) -> Result<Oid, String> {
    let parsed = text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    parsed.ok_or_else(|| {
        let given = text.map_or("NULL".into(), String::from_utf8_lossy);
        format!("catalog of types: {given:?} given as {what}, a number expected")
    })
}
