//! The types that every server has, from PostgreSQL 15's `pg_type.dat` and `pg_range.dat`. Their oids never change.

use super::Oid;
use super::kind::Kind::{self, *};

pub struct BuiltIn {
    pub name: &'static str,
    pub kind: Kind,
    oid: Oid,
}

/// The type of this oid.
#[inline]
pub fn built_in(oid: Oid) -> Option<&'static BuiltIn> {
    match INDEX.get(oid as usize) {
        None | Some(0) => None,
        Some(&place) => ROWS.get(usize::from(place) - 1),
    }
}

/// What separates the elements of an array in its text; only box differs.
pub fn delimiter(element: Oid) -> u8 {
    if element == 603 { b';' } else { b',' }
}

/// Oid, name and kind of each type, and the oid of its arrays (0: it has none).
macro_rules! rows {
    ($($oid:literal $name:literal $kind:expr, $array:literal;)*) => {
        const ROWS: &[BuiltIn] = &[$(
            BuiltIn { oid: $oid, name: $name, kind: $kind },
            BuiltIn { oid: $array, name: concat!("_", $name), kind: Array($oid) },
        )*];
    };
}

rows! {
    16 "bool" Bool, 1000;
    17 "bytea" Bytea, 1001;
    18 "char" Char, 1002;
    19 "name" Text, 1003;
    20 "int8" Int8, 1016;
    21 "int2" Int2, 1005;
    22 "int2vector" Vector(21), 1006;
    23 "int4" Int4, 1007;
    24 "regproc" Registry, 1008;
    25 "text" Text, 1009;
    26 "oid" Unsigned4, 1028;
    27 "tid" Spelled, 1010;
    28 "xid" Unsigned4, 1011;
    29 "cid" Unsigned4, 1012;
    30 "oidvector" Vector(26), 1013;
    114 "json" Text, 199;
    142 "xml" Text, 143;
    194 "pg_node_tree" Spelled, 0;
    600 "point" Spelled, 1017;
    601 "lseg" Spelled, 1018;
    602 "path" Spelled, 1019;
    603 "box" Spelled, 1020;
    604 "polygon" Spelled, 1027;
    628 "line" Spelled, 629;
    650 "cidr" Inet, 651;
    700 "float4" Float4, 1021;
    701 "float8" Float8, 1022;
    705 "unknown" Text, 0;
    718 "circle" Spelled, 719;
    774 "macaddr8" Macaddr, 775;
    790 "money" Spelled, 791;
    829 "macaddr" Macaddr, 1040;
    869 "inet" Inet, 1041;
    1033 "aclitem" Spelled, 1034;
    1042 "bpchar" Text, 1014;
    1043 "varchar" Text, 1015;
    1082 "date" Date, 1182;
    1083 "time" Time, 1183;
    1114 "timestamp" Timestamp, 1115;
    1184 "timestamptz" Timestamptz, 1185;
    1186 "interval" Interval, 1187;
    1266 "timetz" Timetz, 1270;
    1560 "bit" Bit, 1561;
    1562 "varbit" Bit, 1563;
    1700 "numeric" Numeric, 1231;
    1790 "refcursor" Text, 2201;
    2202 "regprocedure" Registry, 2207;
    2203 "regoper" Registry, 2208;
    2204 "regoperator" Registry, 2209;
    2205 "regclass" Registry, 2210;
    2206 "regtype" Registry, 2211;
    2249 "record" Record, 2287;
    2275 "cstring" Text, 1263;
    2277 "anyarray" Array(0), 0;
    2278 "void" Void, 0;
    2950 "uuid" Uuid, 2951;
    2970 "txid_snapshot" Spelled, 2949;
    3220 "pg_lsn" Spelled, 3221;
    3361 "pg_ndistinct" Spelled, 0;
    3402 "pg_dependencies" Spelled, 0;
    3614 "tsvector" Spelled, 3643;
    3615 "tsquery" Spelled, 3645;
    3642 "gtsvector" Spelled, 3644;
    3734 "regconfig" Registry, 3735;
    3769 "regdictionary" Registry, 3770;
    3802 "jsonb" Jsonb, 3807;
    3904 "int4range" Range(23), 3905;
    3906 "numrange" Range(1700), 3907;
    3908 "tsrange" Range(1114), 3909;
    3910 "tstzrange" Range(1184), 3911;
    3912 "daterange" Range(1082), 3913;
    3926 "int8range" Range(20), 3927;
    4072 "jsonpath" Spelled, 4073;
    4089 "regnamespace" Registry, 4090;
    4096 "regrole" Registry, 4097;
    4191 "regcollation" Registry, 4192;
    4451 "int4multirange" Multirange(3904), 6150;
    4532 "nummultirange" Multirange(3906), 6151;
    4533 "tsmultirange" Multirange(3908), 6152;
    4534 "tstzmultirange" Multirange(3910), 6153;
    4535 "datemultirange" Multirange(3912), 6155;
    4536 "int8multirange" Multirange(3926), 6157;
    4600 "pg_brin_bloom_summary" Spelled, 0;
    4601 "pg_brin_minmax_multi_summary" Spelled, 0;
    5017 "pg_mcv_list" Spelled, 0;
    5038 "pg_snapshot" Spelled, 5039;
    5069 "xid8" Unsigned8, 271;
}

const OID_MAX: usize = 6157;

/// For each oid its place in `ROWS`, counted from 1.
static INDEX: [u8; OID_MAX + 1] = {
    assert!(ROWS.len() < 256);
    let mut index = [0; OID_MAX + 1];
    let mut place = 0;
    while place < ROWS.len() {
        if ROWS[place].oid > 0 {
            index[ROWS[place].oid as usize] = place as u8 + 1;
        }
        place += 1;
    }
    index
};

#[cfg(test)]
pub fn all() -> impl Iterator<Item = (Oid, &'static BuiltIn)> {
    ROWS.iter().filter(|row| row.oid > 0).map(|row| (row.oid, row))
}
