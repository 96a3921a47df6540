//! Types against a real server: what it sends in binary and in text is the same value, and what we send of it is what
//! it meant. The server is the test's own; where PostgreSQL is not installed, the test says so and has nothing to judge.
#![cfg(feature = "postgres")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use iokernel::proto::postgres::types::{Oid, Types};
use iokernel::value::{Reader, Token, write};

const SCHEMA: &str = "
    drop schema if exists t cascade; create schema t; set search_path to t, public;
    create type mood as enum ('sad', 'ok', 'very \"happy\", \\ yes');
    create domain even as int4 check (value % 2 = 0);
    create domain moods as mood[];
    create type pair as (a even, b text, dropped int);
    alter type pair drop attribute dropped;
    create type place as (p pair, at point, m mood);
    create table node (id int8, pairs int4);
    alter table node drop column pairs;
    alter table node add column pairs pair[];
    create type floatrange as range (subtype = float8, multirange_type_name = floatmulti);
    create type moodrange as range (subtype = mood);
    create type nothing as ();
    create domain pairs as pair[];";

/// Expressions with their types.
const VALUES: &[&str] = &[
    "true",
    "false",
    "null::int",
    "(-32768)::int2",
    "32767::int2",
    "(-2147483648)::int4",
    "(-9223372036854775808)::int8",
    "4294967295::oid",
    "'4294967295'::xid",
    "'18446744073709551615'::xid8",
    "0.1::float4",
    "3.4e38::float4",
    "1e-40::float4",
    "0.1::float8",
    "'NaN'::float8",
    "'-Infinity'::float8",
    "'-0'::float8",
    "1.7976931348623157e308::float8",
    "'héllo'::text",
    "''::text",
    "'ab '::char(5)",
    "'x'::varchar",
    "'n'::name",
    "'c'::\"char\"",
    "''::\"char\"",
    "'{\"a\": [1, null]}'::json",
    "'{\"a\": [1, null]}'::jsonb",
    "'<a/>'::xml",
    "'\\x00ff5c'::bytea",
    "''::bytea",
    "0::numeric",
    "0.00::numeric",
    "-12.50::numeric",
    "1e10::numeric",
    "12345.678900::numeric",
    "10000::numeric",
    "1e-10::numeric",
    "0.0001::numeric",
    "0.00010::numeric",
    "99999999::numeric",
    "100000000.00000001::numeric",
    "'NaN'::numeric",
    "'Infinity'::numeric",
    "'-Infinity'::numeric",
    "1e131071::numeric",
    "-1e-16383::numeric",
    "(repeat('9', 131072) || '.' || repeat('9', 16383))::numeric",
    "0e-16383::numeric",
    "1.0e-16382::numeric",
    "'2000-01-01'::date",
    "'1970-01-01'::date",
    "'4714-11-24 BC'::date",
    "'0001-12-31 BC'::date",
    "'5874897-12-31'::date",
    "'infinity'::date",
    "'-infinity'::date",
    "'00:00'::time",
    "'24:00:00'::time",
    "'12:34:56.789012'::time",
    "'12:34:56.7+05:30'::timetz",
    "'12:34:56-15:59:59'::timetz",
    "'00:00+00'::timetz",
    "'2024-02-29 12:34:56.789'::timestamp",
    "'4714-11-24 00:00:00 BC'::timestamp",
    "'294247-01-10 04:00:54.775806'::timestamp",
    "'294247-01-10 04:00:54.775807'::timestamp",
    "'294276-12-31 23:59:59.999999'::timestamp",
    "'infinity'::timestamp",
    "'-infinity'::timestamp",
    "'2024-02-29 12:34:56.789+05:30'::timestamptz",
    "'4714-11-24 00:00:00+00 BC'::timestamptz",
    "'294276-12-31 23:59:59.999999+00'::timestamptz",
    "'infinity'::timestamptz",
    "'0044-03-15 12:00+00 BC'::timestamptz",
    "'0'::interval",
    "'1 year 2 mons -3 days 04:05:06.7'::interval",
    "'-1 mons 1 day -00:00:00.000001'::interval",
    "'178956970 years 7 mons 2147483647 days'::interval",
    "make_interval(secs => -9223372036854.775)",
    "'-178956970 years -8 mons'::interval",
    "'-2562047788:00:54.775807'::interval",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
    "'192.168.0.1'::inet",
    "'192.168.0.1/24'::inet",
    "'10.0.0.0/8'::cidr",
    "'10.1.2.3/32'::cidr",
    "'::1'::inet",
    "'::'::inet",
    "'::1.2.3.4'::inet",
    "'::ffff:1.2.3.4'::inet",
    "'2001:db8::1:0:0:1/64'::inet",
    "'2001:db8::/32'::cidr",
    "'1:0:2:3:4:5:6:7'::inet",
    "'08:00:2b:01:02:03'::macaddr",
    "'08:00:2b:01:02:03:04:05'::macaddr8",
    "b'10101'",
    "b''",
    "b'111100001'::varbit",
    "'12.34'::money",
    "'(1,2)'::point",
    "'((0,0),(1,1))'::box",
    "'a fat cat'::tsvector",
    "'fat & cat'::tsquery",
    "'$.a'::jsonpath",
    "'16/B374D848'::pg_lsn",
    "'pg_class'::regclass",
    "'int4'::regtype",
    "'(1,2)'::tid",
    "pg_sleep(0)",
    "'{}'::int4[]",
    "'{1,NULL,3}'::int4[]",
    "'{{1,2},{3,NULL}}'::int8[]",
    "'[-5:-4]={1,2}'::int2[]",
    "'{{{{{{1}}}}}}'::int4[]",
    "'{a,\"b \\\"c\\\\ ,\",NULL,\"NULL\",\"\"}'::text[]",
    "'{t,f}'::bool[]",
    "'{1.5,NaN}'::numeric[]",
    "'{infinity,2000-01-01}'::date[]",
    "array['2000-01-01 00:00'::timestamp]",
    "array['\\x00ff'::bytea]",
    "'{(1,1),(0,0);(2,2),(1,1)}'::box[]",
    "'{a,NULL}'::xml[]",
    "array['{\"a\":1}'::jsonb]",
    "'{10.0.0.1,::1}'::inet[]",
    "'{101,1}'::varbit[]",
    "'{pg_class}'::regclass[]",
    "'1 2 3'::int2vector",
    "''::int2vector",
    "'1 2'::oidvector",
    "array['1 2'::int2vector]",
    "'{a,b}'::name[]",
    "'{a,b}'::\"char\"[]",
    "'[1,5)'::int4range",
    "'empty'::int4range",
    "'(,)'::int8range",
    "'(,1.50]'::numrange",
    "'[2000-01-01,)'::daterange",
    "'[2000-01-01 00:00,2001-01-01 00:00]'::tsrange",
    "'(2000-01-01 00:00+01,)'::tstzrange",
    "'{}'::int4multirange",
    "'{[1,2),[5,)}'::int4multirange",
    "'{(,1.5],[2,3)}'::nummultirange",
    "'{[2000-01-01 00:00,2001-01-01 00:00]}'::tsmultirange",
    "array['[1,5)'::int4range, null, 'empty']",
    "array['{[1,2)}'::int4multirange]",
    "'[-infinity,infinity]'::tsrange",
    "'ok'::mood",
    "'very \"happy\", \\ yes'::mood",
    "array['ok', 'very \"happy\", \\ yes', null]::mood[]",
    "4::even",
    "array[2,4]::even[]",
    "array['ok']::moods",
    "row(2, 'x')::pair",
    "row(null, '')::pair",
    "row(null, null)::pair",
    "row(2, 'a \"b\", (c) \\')::pair",
    "array[row(2, 'a \"b\", (c) \\'), row(4, null), null]::pair[]",
    "array[row(2, 'x')]::pairs",
    "row(row(2, 'a\"\\'), '(1,2)', 'ok')::place",
    "array[row(row(2, 'a\"\\'), '(1,2)', 'very \"happy\", \\ yes')]::place[]",
    "row(1, array[row(2, 'a'), null]::pair[])::node",
    "row()::nothing",
    "'[1.5,2.5]'::floatrange",
    "'{[1.5,2.5],(3,4)}'::floatmulti",
    "'[sad,ok]'::moodrange",
    "'[\"very \\\"happy\\\", \\\\ yes\",]'::moodrange",
    "'{[sad,ok]}'::moodmultirange",
    "1::information_schema.cardinal_number",
    "'x'::cstring",
];

#[test]
fn both_forms_are_one_value_and_come_back() {
    let Some(running) = Running::start() else { return };
    let mut server = Server::connect(&running);
    server.run(SCHEMA);
    let mut types = Types::new();
    let mut wrong = Vec::new();
    for (place, expression) in VALUES.iter().enumerate() {
        if let Err(error) = judge(&mut server, &mut types, expression) {
            wrong.push(format!("{place} {expression:.60}: {error}"));
        }
    }
    // An anonymous record has types in binary alone.
    for (expression, expected) in [
        ("row(1, 'a', null, row(true))", "[1, a, nil, [true]]"),
        ("row('ok'::mood, 'pg_class'::regclass)", "[ok, 1259]"),
        ("array[row(1, 2), row(3, 4)]", "[[1, 2], [3, 4]]"),
    ] {
        let (oid, bytes) = server.query(expression, None, 1).unwrap();
        let mut out = Vec::new();
        let done = types.decode(oid, 1, &bytes.unwrap(), &mut out).map(|()| shown(&out));
        if done.as_deref() != Ok(expected) {
            wrong.push(format!("{expression}: {done:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Values that the server has to complete or parse, beside what it then has.
#[test]
fn what_is_spelled_is_understood() {
    let Some(running) = Running::start() else { return };
    let mut server = Server::connect(&running);
    server.run("set timezone to 'Asia/Kolkata'");
    let types = Types::new();
    let one = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut value = Vec::new();
        write(&mut value);
        value
    };
    let all = |parts: &[Vec<u8>]| {
        let mut value = Vec::new();
        write::array(&mut value, parts.len() as u32);
        value.extend(parts.concat());
        value
    };
    let str = |text: &str| one(&|out| write::str(out, text.as_bytes()));
    let ext = |kind: i8, bytes: &[u8]| one(&|out| write::ext(out, kind, bytes));
    let range = |flags: u64, lower: Vec<u8>, upper: Vec<u8>| {
        ext(24, &all(&[one(&|out| write::uint(out, flags)), lower, upper]))
    };
    let (int, nil) = (one(&|out| write::int(out, 2)), one(&write::nil));
    let (day, noon) = (19_723_i32.to_be_bytes(), 1_704_110_400_000_000_i64.to_be_bytes());
    for (oid, value, expected) in [
        (1007, all(&[str("1"), int.clone(), nil.clone()]), "'{1,2,NULL}'::int4[]"),
        (
            1009,
            all(&[all(&[str("a\"\\"), str("")]), all(&[str("NULL"), nil.clone()])]),
            "array[['a\"\\',''],['NULL',null]]",
        ),
        (1020, all(&[str("(1,1),(0,0)"), str("(2,2),(1,1)")]), "'{(1,1),(0,0);(2,2),(1,1)}'::box[]"),
        (2210, all(&[str("pg_class"), int.clone()]), "array['pg_class','2']::regclass[]"),
        (1006, all(&[all(&[]), all(std::slice::from_ref(&int))]), "array[''::int2vector,'2'::int2vector]"),
        (20, ext(16, b"5"), "5::int8"),
        (701, ext(16, b"-1.5E+3"), "'-1500'::float8"),
        (790, ext(16, b"1.50"), "'1.50'::money"),
        (1114, ext(17, &day), "'2024-01-01 00:00'::timestamp"),
        (1184, ext(17, &day), "'2024-01-01 00:00+05:30'::timestamptz"),
        (1184, ext(20, &noon), "'2024-01-01 12:00+05:30'::timestamptz"),
        (1184, ext(21, &noon), "'2024-01-01 12:00+00'::timestamptz"),
        (1185, all(&[ext(21, &noon), ext(20, &noon)]), "'{2024-01-01 12:00+00,2024-01-01 12:00+05:30}'::timestamptz[]"),
        (1270, all(&[ext(18, &[0; 8]), ext(19, &[0; 12])]), "'{00:00+05:30,00:00+00}'::timetz[]"),
        (3906, range(2, str("1.5"), int), "'[1.5,2)'::numrange"),
        (3910, range(18, ext(17, &day), nil), "'[2024-01-01 00:00+05:30,)'::tstzrange"),
        (
            1185,
            all(&[str("2024-01-01 BC"), ext(21, &i64::MAX.to_be_bytes())]),
            "'{2024-01-01 BC,infinity}'::timestamptz[]",
        ),
        (1187, all(&[str("1 day"), ext(22, &[255; 16])]), "'{1 day,-1 mons -1 days -00:00:00.000001}'::interval[]"),
        (
            2951,
            all(&[str("A0EEBC999C0B4EF8BB6D6BB9BD380A11"), ext(23, &[7; 16])]),
            "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,07070707-0707-0707-0707-070707070707}'::uuid[]",
        ),
        (1001, all(&[str("\\x00"), one(&|out| write::bin(out, b"\\\xff"))]), "array['\\x00','\\x5cff']::bytea[]"),
    ] {
        let mut parameter = Vec::new();
        let format = types.encode(oid, &value, &mut parameter).unwrap_or_else(|error| panic!("{expected}: {error}"));
        let same = format!("$1::text = ({expected})::text");
        let verdict = server.query(&same, Some((oid, format, &parameter)), 0);
        let sent = String::from_utf8_lossy(&parameter);
        assert_eq!(verdict.map(|(_, verdict)| verdict), Ok(Some(b"t".to_vec())), "{expected}: {sent:?}");
    }
}

fn judge(server: &mut Server, types: &mut Types, expression: &str) -> Result<(), String> {
    let (oid, spelled) = server.query(expression, None, 0)?;
    loop {
        let missing = types.missing([oid].into_iter());
        if missing.is_empty() {
            break;
        }
        let list: Vec<String> = missing.iter().map(Oid::to_string).collect();
        for row in server.run(&Types::QUERY.replace("{OIDS}", &list.join(","))) {
            let cells: Vec<Option<&[u8]>> = row.iter().map(Option::as_deref).collect();
            types.learn(&cells)?;
        }
    }
    let Some(spelled) = spelled else { return Ok(()) };
    let mut from_text = Vec::new();
    types.decode(oid, 0, &spelled, &mut from_text)?;
    let format = types.format(oid);
    let (_, bytes) = server.query(expression, None, format)?;
    let mut value = Vec::new();
    types.decode(oid, format, &bytes.ok_or("NULL")?, &mut value)?;
    let (binary, text) = (shown(&value), shown(&from_text));
    if binary != text {
        return Err(format!("binary {binary:.200}, text {text:.200}"));
    }
    if matches!(types.name(oid), "void" | "cstring") {
        return Ok(());
    }
    // What it says of its own text, and of what we make of the value; lower bounds are the one thing that is lost.
    let same = expression.contains("=").then_some("true");
    let compare = same.map_or_else(|| format!("$1::text = ({expression})::text"), str::to_owned);
    let mut parameter = Vec::new();
    let sent = types.encode(oid, &value, &mut parameter)?;
    // A second time with all of it spelled.
    let mut text = Vec::new();
    let mut spelled_value = vec![0xdb];
    spelled_value.extend_from_slice(&(spelled.len() as u32).to_be_bytes());
    spelled_value.extend_from_slice(&spelled);
    let textual = types.encode(oid, &spelled_value, &mut text)?;
    for (format, parameter) in [(sent, parameter), (textual, text)] {
        // PostgreSQL cannot read the longest time that it writes.
        if format == 0 && expression.starts_with("make_interval") {
            continue;
        }
        let (_, verdict) = server.query(&compare, Some((oid, format, &parameter)), 0)?;
        if verdict.as_deref() != Some(b"t") {
            return Err(format!("format {format} came back as another value: {parameter:.60?}"));
        }
    }
    Ok(())
}

/// Independent of how lengths are written.
fn shown(value: &[u8]) -> String {
    let mut reader = Reader::new(value);
    let shown = one(&mut reader);
    assert!(reader.is_at_end());
    shown
}

fn one(reader: &mut Reader<'_>) -> String {
    match reader.token().unwrap() {
        Token::Nil => "nil".into(),
        Token::Bool(value) => value.to_string(),
        Token::Int(value) => value.to_string(),
        Token::Uint(value) => value.to_string(),
        Token::Float(value) => format!("{value:?}"),
        Token::Str(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Array(count) => {
            let parts: Vec<String> = (0..count).map(|_| one(reader)).collect();
            format!("[{}]", parts.join(", "))
        }
        Token::Ext(number @ (24 | 25), bytes) => format!("{number}{}", shown(bytes)),
        Token::Ext(number, bytes) => format!("{number} {bytes:?}"),
        token => format!("{token:?}"),
    }
}

/// A server, in a folder that goes with it.
struct Running {
    programs: PathBuf,
    /// It refuses to run as root.
    as_postgres: bool,
    folder: PathBuf,
}

impl Running {
    /// None where there is no PostgreSQL.
    fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        folders.sort();
        let Some(programs) = folders.into_iter().rfind(|folder| folder.join("postgres").exists()) else {
            eprintln!("PostgreSQL's server is not installed (Debian: postgresql): nothing is judged");
            return None;
        };
        let as_postgres = Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout == b"0\n");
        let name = format!("iok-{}-{}", std::process::id(), std::thread::current().name().unwrap_or_default());
        let running = Running { programs, as_postgres, folder: std::env::temp_dir().join(name) };
        std::fs::create_dir(&running.folder).unwrap();
        if as_postgres {
            assert!(Command::new("chown").arg("postgres:postgres").arg(&running.folder).status().unwrap().success());
        }
        running.run("initdb", &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let options = format!("-F -h '' -k {}", running.folder.display());
        running.run("pg_ctl", &["-w", "-l", "log", "-o", &options, "start"]);
        Some(running)
    }

    /// One of its programs, with its data.
    fn run(&self, name: &str, arguments: &[&str]) {
        let program = self.programs.join(name);
        let mut command = Command::new(if self.as_postgres { Path::new("setpriv") } else { &program });
        if self.as_postgres {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(&program);
        }
        command.args(["-D", "data"]).args(arguments).current_dir(&self.folder);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{name}: {status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run("pg_ctl", &["-w", "-m", "immediate", "stop"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A conn that the server trusts.
struct Server(UnixStream);

type Row = Vec<Option<Vec<u8>>>;

impl Server {
    fn connect(running: &Running) -> Self {
        let mut server = Server(UnixStream::connect(running.folder.join(".s.PGSQL.5432")).expect("a server"));
        let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0client_encoding\0UTF8\0\0";
        server.0.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
        server.0.write_all(body).unwrap();
        server.until_ready().unwrap();
        server
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        self.0.write_all(&message).unwrap();
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// The type of the first column, and the rows.
    fn until_ready(&mut self) -> Result<(Oid, Vec<Row>), String> {
        let (mut oid, mut rows, mut error) = (0, Vec::new(), None);
        loop {
            match self.message() {
                (b'T', body) => {
                    let name = 2 + body[2..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
                    oid = u32::from_be_bytes(body[name + 6..name + 10].try_into().unwrap_or_default());
                }
                (b'D', body) => rows.push(cells(&body)),
                (b'E', body) => error = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                (b'Z', _) => return error.map_or(Ok((oid, rows)), Err),
                _ => {}
            }
        }
    }

    fn run(&mut self, sql: &str) -> Vec<Row> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat());
        self.until_ready().unwrap_or_else(|error| panic!("{error}")).1
    }

    /// The one value of `select expression`.
    fn query(
        &mut self,
        expression: &str,
        parameter: Option<(Oid, i16, &[u8])>,
        format: i16,
    ) -> Result<(Oid, Option<Vec<u8>>), String> {
        let mut parse = format!("\0select {expression}\0").into_bytes();
        let mut bind = b"\0\0".to_vec();
        match parameter {
            None => {
                parse.extend_from_slice(&[0, 0]);
                bind.extend_from_slice(&[0, 0, 0, 0]);
            }
            // `$1::text` would make the parameter itself a text.
            Some((oid, code, bytes)) => {
                parse = parse_of(expression, oid);
                bind.extend_from_slice(&[0, 1]);
                bind.extend_from_slice(&code.to_be_bytes());
                bind.extend_from_slice(&[0, 1]);
                bind.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                bind.extend_from_slice(bytes);
            }
        }
        bind.extend_from_slice(&[0, 1]);
        bind.extend_from_slice(&format.to_be_bytes());
        self.send(b'P', &parse);
        self.send(b'B', &bind);
        self.send(b'D', b"P\0");
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
        let (oid, mut rows) = self.until_ready()?;
        let mut row = rows.pop().ok_or("no row")?;
        Ok((oid, row.remove(0)))
    }
}

fn parse_of(expression: &str, oid: Oid) -> Vec<u8> {
    let sql = match expression {
        "true" => "select $1 is not null".to_owned(),
        other => format!("select {other}"),
    };
    let mut parse = format!("\0{sql}\0").into_bytes();
    parse.extend_from_slice(&[0, 1]);
    parse.extend_from_slice(&oid.to_be_bytes());
    parse
}

fn cells(body: &[u8]) -> Row {
    let mut rest = &body[2..];
    let mut cells = Vec::new();
    while rest.len() >= 4 {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        let Ok(length) = usize::try_from(length) else {
            cells.push(None);
            continue;
        };
        cells.push(Some(rest[..length].to_vec()));
        rest = &rest[length..];
    }
    cells
}
