//! Conversations as they were on the wire, recorded from PostgreSQL 15.
use crate::proto::{Follow, Sample};

const URL: &str = "postgres://app@localhost/postgres";
const URL_UNPREPARED: &str = "postgres://app@localhost/postgres?prepare=false";
const URL_WRONG: &str = "postgres://app:wrong@localhost/postgres";

macro_rules! sample {
    ($name:literal, $url:expr, $follow:ident, $requests:expr) => {
        Sample {
            name: $name,
            url: $url,
            follow: Follow::$follow,
            from_server: true,
            requests: $requests,
            bytes: include_bytes!(concat!($name, ".pg")),
        }
    };
}

pub static SAMPLES: &[Sample] = &[
    sample!(
        "statements",
        URL,
        Nothing,
        &[
            b"\x91\xd9!select 1::int4 as id, 'a' as name",
            b"\x91\xd9!select 1::int4 as id, 'a' as name",
            b"\x91\xd90create table sample (a int4 primary key, b text)",
            b"\x93\xd9\"insert into sample values ($1, $2)\x07\xa1x",
            b"\x93\xd9\"insert into sample values ($1, $2)\x07\xc0",
            b"\x91\xb0select no_column",
            b"\x91\xa0",
            b"\x92\xafselect $1::int4\xcb?\xf8\x00\x00\x00\x00\x00\x00",
            b"\x93\x91\xb4select a from sample\x91\xaaselect 1/0\x81\xa6simple\xd9 select 2; select 'x'::text, null",
            b"\x91\x81\xa6simple\xd9.insert into sample values (8, 'y'); select 1/0",
            b"\x91\xb8select repeat('x', 4200)",
            b"\x91\xd9!select 1::int4 as id, 'a' as name",
        ]
    ),
    sample!(
        "changing",
        URL,
        Nothing,
        &[
            b"\x91\xb4select * from sample",
            b"\x91\xb4select * from sample",
            b"\x91\x81\xa6simple\xb9alter table sample drop b",
            b"\x91\xb4select * from sample",
            b"\x91\xaeselect 1::int8",
            b"\x91\xb4select * from sample",
        ]
    ),
    sample!("roles", URL, Roles, &[b"\x91\xaeselect 1::int4", b"\x91\xbdinsert into sample values (9)",]),
    sample!(
        "topics",
        URL,
        Nothing,
        &[
            b"\x92\xa6LISTEN\xa4news",
            b"\x91\x81\xa6simple\xb3notify news, 'rain'",
            b"\x91\x81\xa6simple\xbcselect pg_notify('news', '')",
        ]
    ),
    sample!(
        "unprepared",
        URL_UNPREPARED,
        Nothing,
        &[b"\x92\xafselect $1::int4\x05", b"\x92\xafselect $1::int4\x06", b"\x91\xb0select 'a'::text",]
    ),
    sample!("refused", URL_WRONG, Nothing, &[]),
];
