//! Requests on their way to the server, in the order in which they came.
//!
//! What a statement's parameters and columns are must be known before its values can be written. Where it is not, the
//! statement is sent alone first, and everything behind it waits; what waits may have its own statements learnt ahead.
use std::sync::Arc;

use super::incoming::Outcome;
use super::request::{Asked, Part, bad_request};
use super::session::{IDLE, Session};
use super::sql::Effect;
use super::statements::{Description, Prepared, Text};
use super::units::{Draft, Execution, Kind, Owner};
use super::wire;
use crate::proto::{Out, Refusal, RequestId, Then};
use crate::value::Reader;

/// A longer text is not kept: it is learnt each time.
const TEXT_BYTES_KEPT: usize = 64 << 10;
/// A longer request is not kept until its reply, so that it cannot be sent once more.
const AGAIN_BYTES_MAX: usize = 64 << 10;

/// A part of a request that was not sent yet.
#[derive(Debug)]
pub struct Waiting {
    pub owner: Owner,
    pub body: Box<[u8]>,
    /// It was sent before, and not executed.
    pub again: bool,
}

/// The replies of a batch, as far as they came.
#[derive(Debug)]
pub struct Gather {
    pub replies: Vec<Vec<u8>>,
    pub left: usize,
    pub bytes: usize,
}

/// What a statement is sent with.
struct Plan {
    prepared: Prepared,
    /// The statement goes along.
    parses: bool,
}

impl Session {
    /// `streams`: the rows of a single statement are wanted as they come.
    pub fn request(&mut self, id: RequestId, body: &[u8], streams: bool, wire: &mut Vec<u8>) -> Result<Then, Refusal> {
        let Asked { parts, is_batch, .. } = Asked::read(body, self.limits.depth_max)?;
        let sequence = self.sequence + 1;
        if !is_batch {
            let (part, body) = &parts[0];
            self.pass(Owner { id, sequence, part: None, streams }, part, body, wire)?;
        } else {
            let replies = vec![Vec::new(); parts.len()];
            self.batches.insert(sequence, Gather { replies, left: parts.len(), bytes: 0 });
            for (index, (part, body)) in parts.iter().enumerate() {
                let owner = Owner { id, sequence, part: Some(index as u32), streams: false };
                let start = wire.len();
                if self.pass(owner, part, body, wire).is_err() {
                    // Said once those before it have their replies: a request being sent tells nothing.
                    wire.truncate(start);
                    self.waiting.push_back(Waiting { owner, body: (*body).into(), again: false });
                }
            }
        }
        let is_copy = matches!(parts[..], [(Part::Copy { .. }, _)]);
        self.sequence = sequence;
        self.last_id = self.last_id.max(id.0);
        self.requests += 1;
        if self.units.is_empty() && !self.waiting.is_empty() && !self.holds() {
            // What waits goes on with the next answer.
            self.heartbeat(wire);
        }
        Ok(if is_copy { Then::Open } else { Then::Done })
    }

    /// Sends a part, or lets it wait.
    fn pass(&mut self, owner: Owner, part: &Part<'_>, body: &[u8], wire: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.waiting.is_empty() && !self.holds() {
            let start = wire.len();
            match self.send(owner, part, body, false, wire) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(refusal) => {
                    wire.truncate(start);
                    return Err(refusal);
                }
            }
        } else if let Part::Extended { sql, .. } = part {
            self.learn_ahead(sql, wire);
        }
        self.waiting.push_back(Waiting { owner, body: body.into(), again: false });
        Ok(())
    }

    /// Sends what waits, as far as it is known how.
    pub fn send_waiting(&mut self, out: &mut Out<'_>) {
        while !self.closing
            && let Some(Waiting { owner, body, again }) = self.waiting.pop_front()
        {
            if self.cancelled.contains(&owner.id) && owner.part.is_none() {
                self.finish(owner, Outcome::Nothing, out);
                continue;
            }
            let start = out.wire.len();
            let sent = match Asked::read(&body, self.limits.depth_max) {
                Ok(Asked { parts, .. }) => self.send(owner, &parts[0].0, &body, again, out.wire),
                Err(refusal) => Err(refusal),
            };
            match sent {
                Ok(true) => {}
                Ok(false) => {
                    self.waiting.push_front(Waiting { owner, body, again });
                    return;
                }
                Err(refusal) => {
                    out.wire.truncate(start);
                    self.finish(owner, Outcome::Refused(refusal), out);
                }
            }
        }
    }

    /// False: the statement must be learnt first, and is. After a refusal the caller cuts `wire` back; nothing else changed.
    fn send(
        &mut self,
        owner: Owner,
        part: &Part<'_>,
        body: &[u8],
        again: bool,
        wire: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let effect = part.effect();
        match part {
            Part::Simple { sql } => {
                wire::query(wire, sql);
                self.mark(effect);
                let body = (body.len() <= AGAIN_BYTES_MAX).then(|| body.into());
                self.units.push(Kind::Script { owner, procedure: effect.procedure, body });
            }
            Part::Copy { sql } => {
                wire::query(wire, sql);
                self.mark(effect);
                self.units.push(Kind::Copy { owner, open: true });
            }
            Part::Extended { sql, count, parameters } => {
                self.renew(wire);
                let Some(plan) = self.plan(sql) else {
                    self.learn(sql, false, wire);
                    return Ok(false);
                };
                let description = plan.prepared.description.clone();
                check_count(description.parameters.len(), *count)?;
                let number = self.write_execution(&plan, parameters.clone(), wire)?;
                self.mark(effect);
                let keeps = !again && body.len() <= AGAIN_BYTES_MAX;
                self.units.push(Kind::Execute(Box::new(Execution {
                    owner,
                    description,
                    parses: plan.parses,
                    number,
                    again: keeps.then(|| body.into()),
                    procedure: effect.procedure,
                })));
            }
        }
        Ok(true)
    }

    /// Prepares anew what was prepared before tables were defined anew: within a transaction, whose statements an error
    /// would end, there is no second try.
    fn renew(&mut self, wire: &mut Vec<u8>) {
        let definitions = self.shared.lock().definitions;
        if std::mem::replace(&mut self.definitions, definitions) != definitions {
            self.prepared.drain().for_each(|gone| wire::close_statement(wire, gone.number));
            self.learnt = None;
        }
    }

    /// Under which name a statement is to be used, or None if it must be learnt.
    fn plan(&mut self, sql: &[u8]) -> Option<Plan> {
        if let Some(prepared) = self.prepared.get(sql) {
            return Some(Plan { prepared: prepared.clone(), parses: false });
        }
        if let Some(learnt) = self.learnt.as_ref().filter(|learnt| *learnt.description.text == *sql) {
            return Some(Plan { prepared: learnt.clone(), parses: true });
        }
        let description = self.shared.lock().statements.get(sql).cloned()?;
        let number = if self.options.prepare { self.last_number + 1 } else { 0 };
        Some(Plan { prepared: Prepared { number, description }, parses: true })
    }

    /// Writes one execution, and returns the name of the statement.
    fn write_execution(&mut self, plan: &Plan, mut values: Reader<'_>, wire: &mut Vec<u8>) -> Result<u64, Refusal> {
        let Plan { prepared: Prepared { number, description }, parses } = plan;
        let start = wire.len();
        if *parses {
            wire::parse(wire, *number, &description.text, &description.parameters);
        }
        let depth_max = self.limits.depth_max;
        let shared = self.shared.lock();
        let (oids, types) = (&description.parameters, &shared.types);
        let bound = wire::bind(wire, *number, oids.len(), &description.formats, |index, wire| {
            let value = values.skip(depth_max).map_err(|error| error.to_string())?;
            if value == [0xc0] {
                return Ok(None);
            }
            let encoded = types.encode(oids[index], value, wire);
            encoded.map(Some).map_err(|why| format!("parameter {}: {why}", index + 1))
        });
        drop(shared);
        bound.map_err(bad_request)?;
        if wire.len() - start > wire::SENT_BYTES_MAX {
            let max = wire::SENT_BYTES_MAX;
            return Err(bad_request(format!("the parameters are too large: PostgreSQL takes {max} bytes at most")));
        }
        if *parses {
            wire::describe_portal(wire);
        }
        wire::execute(wire);
        if *parses && *number != 0 {
            self.last_number = self.last_number.max(*number);
            self.keep(plan.prepared.clone(), wire);
        }
        wire::sync(wire);
        Ok(*number)
    }

    /// The statement has a name from here on. One that has not been used for long loses its own.
    pub fn keep(&mut self, prepared: Prepared, wire: &mut Vec<u8>) {
        let text = prepared.description.text.clone();
        if let Some((_, gone)) = self.prepared.insert(text, prepared) {
            wire::close_statement(wire, gone.number);
        }
    }

    /// Asks the server what a statement is.
    fn learn(&mut self, sql: &[u8], ahead: bool, wire: &mut Vec<u8>) {
        if self.units.is_learning(sql) {
            return;
        }
        let mut number = 0;
        if self.options.prepare && sql.len() <= TEXT_BYTES_KEPT {
            self.last_number += 1;
            number = self.last_number;
        }
        wire::parse(wire, number, sql, &[]);
        wire::describe_statement(wire, number);
        wire::sync(wire);
        self.units.push(Kind::Describe(Box::new(Draft {
            text: sql.into(),
            number,
            ahead,
            parameters: Vec::new(),
            columns: Vec::new(),
            asked: Vec::new(),
        })));
    }

    /// The same before its turn: never inside of a transaction, which an error would end.
    fn learn_ahead(&mut self, sql: &[u8], wire: &mut Vec<u8>) {
        let free = self.state.status == IDLE && !self.state.tenant && self.options.prepare;
        if free && sql.len() <= TEXT_BYTES_KEPT && self.plan(sql).is_none() {
            self.learn(sql, true, wire);
        }
    }

    /// A statement is known.
    pub fn learnt(&mut self, draft: Draft, wire: &mut Vec<u8>) {
        let Draft { text, number, parameters, columns, .. } = draft;
        let is_kept = text.len() <= TEXT_BYTES_KEPT;
        let mut known = self.shared.lock();
        let description = Arc::new(Description::new(text.clone(), parameters, columns, &known.types));
        if is_kept {
            known.statements.insert(text, description.clone());
        }
        drop(known);
        let prepared = Prepared { number, description };
        if number != 0 {
            self.keep(prepared, wire);
        } else {
            self.learnt = Some(prepared);
        }
    }

    /// What the conn and the endpoint know of a statement is wrong.
    pub fn forget(&mut self, text: &Text, everywhere: bool) {
        self.prepared.remove(&**text);
        self.learnt = None;
        if everywhere {
            self.shared.lock().statements.remove(&**text);
        }
    }

    fn mark(&mut self, effect: Effect) {
        self.state.tenant |= effect.transaction || effect.session;
        self.state.session |= effect.session;
    }

    /// Nobody waits for this request any more. What was sent of it is answered nonetheless.
    pub fn cancel(&mut self, id: RequestId, wire: &mut Vec<u8>) {
        if id.0 > self.last_id {
            return;
        }
        self.end_copy(id, wire);
        if self.cancelled.len() >= self.requests {
            // Those that are over by now were no news to anybody.
            let owners = self.units.iter().filter_map(Kind::owner);
            let open = owners.chain(self.waiting.iter().map(|waiting| waiting.owner)).map(|owner| owner.id).collect();
            self.cancelled = self.cancelled.intersection(&open).copied().collect();
        }
        self.cancelled.insert(id);
    }

    /// Begins or ends pushes of a channel.
    pub fn listen(&mut self, channel: &[u8], begins: bool, wire: &mut Vec<u8>) {
        let mut sql = Vec::from(if begins { &b"LISTEN \""[..] } else { b"UNLISTEN \"" });
        for byte in channel {
            // A quote in a name is doubled.
            sql.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
        }
        sql.push(b'"');
        wire::query(wire, &sql);
        let kind = if begins { Kind::Listen(channel.into()) } else { Kind::Unlisten(channel.into()) };
        self.units.push(kind);
    }

    /// Writes what takes a tenant's state off.
    pub fn clean(&mut self, wire: &mut Vec<u8>) {
        // DISCARD ALL would end them.
        self.state.spoiled |= self.state.session && !self.topics.is_empty();
        if self.state.spoiled {
            return;
        }
        if self.state.status != IDLE || self.state.tenant && self.units.is_busy() {
            self.roll_back(wire);
        }
        if std::mem::take(&mut self.state.session) {
            self.prepared.clear();
            wire::query(wire, b"DISCARD ALL");
            self.state.cleanups += 1;
            self.units.push(Kind::Discard);
        }
        self.state.tenant = false;
    }

    pub fn roll_back(&mut self, wire: &mut Vec<u8>) {
        wire::query(wire, b"ROLLBACK");
        self.state.cleanups += 1;
        self.units.push(Kind::Rollback);
    }
}

fn check_count(expected: usize, given: u32) -> Result<(), Refusal> {
    if expected == given as usize {
        return Ok(());
    }
    Err(bad_request(format!("{given} parameters were given: the statement has {expected}")))
}
