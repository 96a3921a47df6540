//! Conversations as they were on the wire. `*.resp` were recorded from redis-server, redis-cli and redis-benchmark
//! 7.0.15; what no server sends yet (streamed values) is written here by hand after the specification.
use crate::proto::{Follow, Sample};

const URL: &str = "redis://localhost";
const URL_RESP2: &str = "redis://localhost?protocol=2";
const DEBUG: &[u8] = b"\x93\xa5DEBUG\xa8PROTOCOL\xa6string";
const GET: &[u8] = b"\x92\xa3GET\xa1k";
const EVAL: &[u8] = b"\x93\xa4EVAL\xa1x\x00";
const TRANSACTION: &[u8] = b"\x93\x91\xa5MULTI\x92\xa4INCR\xa1a\x91\xa4EXEC";
const SET: &[u8] = b"\x93\xa3SET\xa1k\xa1v";

macro_rules! sample {
    ($name:literal, $url:expr, $from_server:literal, $requests:expr) => {
        Sample {
            name: $name,
            url: $url,
            follow: Follow::Nothing,
            from_server: $from_server,
            requests: $requests,
            bytes: include_bytes!(concat!($name, ".resp")),
        }
    };
}

pub static SAMPLES: &[Sample] = &[
    sample!("types3", URL, true, &[DEBUG; 13]),
    sample!("types2", URL_RESP2, true, &[DEBUG; 12]),
    sample!(
        "topics3",
        URL,
        true,
        &[
            b"\x92\xa9SUBSCRIBE\xa4news",
            b"\x92\xaaPSUBSCRIBE\xa2n*",
            b"\x92\xaaSSUBSCRIBE\xa2sh",
            b"\x93\xa7PUBLISH\xa4news\xa1y",
            b"\x93\xa8SPUBLISH\xa2sh\xa1z",
        ]
    ),
    sample!("topics2", URL_RESP2, true, &[b"\x92\xa9SUBSCRIBE\xa4news", b"\x92\xaaPSUBSCRIBE\xa2n*"]),
    sample!(
        "transaction",
        URL,
        true,
        &[
            // MULTI, SET a 1, NOSUCH and EXEC in one batch; then one by one.
            b"\x94\x91\xa5MULTI\x93\xa3SET\xa1a\x01\x91\xa6NOSUCH\x91\xa4EXEC",
            b"\x92\xa5WATCH\xa1a",
            b"\x91\xa5MULTI",
            b"\x91\xa5MULTI",
            GET,
            b"\x91\xa4EXEC",
            b"\x91\xa4EXEC",
        ]
    ),
    sample!("monitor", URL, true, &[b"\x91\xa7MONITOR"]),
    sample!("tracking", "redis://localhost?tracking=bcast", true, &[SET, b"\x91\xa8FLUSHALL", GET]),
    sample!("command", "redis://localhost?attributes=true", true, &[b"\x94\xa7COMMAND\xa4INFO\xa3GET\xa4XADD"]),
    sample!("refused", "redis://nobody:x@localhost", true, &[]),
    Sample {
        name: "streamed",
        url: "redis://localhost?protocol=2&attributes=true",
        follow: Follow::Nothing,
        from_server: true,
        requests: &[GET, GET, GET, GET, GET],
        bytes: b"+PONG\r\n+OK\r\n+OK\r\n$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;1\r\nd\r\n;0\r\n\
                 *?\r\n:1\r\n%?\r\n+a\r\n,2.5\r\n.\r\n~?\r\n#t\r\n_\r\n.\r\n$?\r\n;0\r\n.\r\n\
                 |1\r\n+ttl\r\n:3600\r\n*3\r\n:1\r\n|1\r\n+x\r\n:1\r\n$1\r\nb\r\n~0\r\n\
                 !21\r\nSYNTAX invalid syntax\r\n-ERR bye\r\n",
    },
    Sample {
        name: "resp2 fallback",
        url: "redis://:secret@localhost/1",
        follow: Follow::Nothing,
        from_server: true,
        requests: &[GET],
        bytes: b"-ERR unknown command 'HELLO'\r\n-NOAUTH x\r\n-ERR x\r\n-ERR x\r\n+OK\r\n+OK\r\n+PONG\r\n-ERR x\r\n-ERR x\r\n\
                 $-1\r\n",
    },
    Sample {
        name: "roles",
        url: URL,
        follow: Follow::Roles,
        from_server: true,
        requests: &[SET, GET, TRANSACTION, TRANSACTION, EVAL],
        bytes: b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:3\r\n\
                 $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$7\r\nreplica\r\n$7\r\nmodules\r\n*0\r\n+PONG\r\n\
                 *5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7001\r\n$9\r\nconnected\r\n:14\r\n-ERR x\r\n-ERR x\r\n\
                 -READONLY You can't write against a read only replica.\r\n$1\r\nv\r\n\
                 +OK\r\n-READONLY You can't write against a read only replica.\r\n\
                 -EXECABORT Transaction discarded because of previous errors.\r\n\
                 +OK\r\n+QUEUED\r\n*1\r\n:1\r\n\
                 -READONLY You can't write against a read only replica. script: 4ca238, on @user_script:1.\r\n",
    },
    Sample {
        name: "cluster",
        url: "redis://localhost?protocol=2",
        follow: Follow::Topology,
        from_server: true,
        requests: &[GET, SET, GET, TRANSACTION, SET],
        bytes: b"+PONG\r\n-ERR x\r\n-ERR x\r\n\
                 *2\r\n*4\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n*0\r\n\
                 *4\r\n$9\r\n127.0.0.1\r\n:7002\r\n$2\r\nid\r\n*0\r\n\
                 *3\r\n:8192\r\n:16383\r\n*4\r\n$0\r\n\r\n:7003\r\n$2\r\nid\r\n*0\r\n\
                 -MOVED 7629 127.0.0.1:7001\r\n-ASK 7629 127.0.0.1:7003\r\n$-1\r\n\
                 +OK\r\n-MOVED 15495 :7003\r\n-EXECABORT Transaction discarded because of previous errors.\r\n\
                 -CLUSTERDOWN Hash slot not served\r\n",
    },
    Sample {
        name: "not redis",
        url: URL,
        follow: Follow::Nothing,
        from_server: true,
        requests: &[],
        bytes: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    },
    sample!("redis-cli", URL, false, &[]),
    sample!("redis-benchmark", URL, false, &[]),
    Sample {
        name: "a client of every kind",
        url: "redis://:secret@localhost",
        follow: Follow::Nothing,
        from_server: false,
        requests: &[],
        bytes: b"PING\r\n*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\nget 'b c' \"\\x41\"\r\n*0\r\n\r\n*1\r\n$4\r\nPING\r\n\
                 *5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$6\r\nsecret\r\n\
                 *2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n\
                 *2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nQUIT\r\n",
    },
];
