//! What the server says of the unit at the head, until its ReadyForQuery ends it (PostgreSQL 15 documentation, 55.2.2 and
//! 55.2.3). A reply is told then and not before: an implicit transaction commits at the very end.
use super::error::ServerError;
use super::follow::Told;
use super::sending::{Gather, Waiting};
use super::session::{IDLE, Phase, Session};
use super::startup::turned_away;
use super::statements::{Columns, redefines};
use super::units::{Draft, Execution, Kind, Owner, Progress};
use super::wire::{self, Fields, broken};
use crate::proto::{Body, Event, Fault, FaultKind, Follow, Of, Out, Refusal, Rejection, RequestId};
use crate::ring::layout::IOK_EXT_ERROR;
use crate::value::write;

/// How often the catalog is asked for the types of one statement: those of arrays and composites follow their owners.
const LOOKUPS_MAX: usize = 1024;

/// How a part of a request ended.
pub enum Outcome {
    /// The answer is its reply.
    Reply,
    /// The answer is the replies of its statements.
    Script,
    Error(ServerError),
    Rejected(ServerError, Rejection<'static>),
    /// It could not be sent.
    Refused(Refusal),
    /// Nobody waits for it.
    Nothing,
}

impl Session {
    /// One message.
    #[inline]
    pub fn message(&mut self, kind: u8, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        match kind {
            b'N' => {
                let notice = ServerError::read(body).ok_or_else(|| cut_short("NoticeResponse"))?;
                if self.units.front().and_then(Kind::owner).is_some() {
                    self.answer.notice(&notice);
                }
                return Ok(());
            }
            b'S' => {
                let moved = self.server.set(body).ok_or_else(|| cut_short("ParameterStatus"))?;
                if moved && self.phase == Phase::Ready {
                    self.role_moved(out);
                }
                return Ok(());
            }
            b'A' => return self.notification(body, out),
            _ => {}
        }
        if self.phase == Phase::Startup { self.welcome(kind, body, out) } else { self.of_head(kind, body, out) }
    }

    /// A message before the first ReadyForQuery.
    fn welcome(&mut self, kind: u8, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        match kind {
            b'R' => self.startup.authenticate(body, &self.options, &self.shared, out.wire),
            b'E' => {
                let error = ServerError::read(body).ok_or_else(|| cut_short("ErrorResponse"))?;
                Err(turned_away(&error))
            }
            b'K' => {
                let mut fields = Fields(body);
                self.server.process = fields.uint32().ok_or_else(|| cut_short("BackendKeyData"))?;
                self.server.secret = fields.uint32();
                // A pooler in transaction mode gives one server's conn to many clients, whose names must not be the same: a
                // statement would be executed in place of another. It numbers its clients at random.
                self.last_number = u64::from(self.server.process) << 32;
                Ok(())
            }
            // NegotiateProtocolVersion: we ask for 3.0 and for no options, so any answer is within that.
            b'v' => Ok(()),
            b'Z' if self.startup.is_authenticated() => {
                self.status(body)?;
                if self.limits.follow == Follow::Roles {
                    self.phase = Phase::Asking;
                    self.ask_role(out.wire);
                } else {
                    self.ready(out);
                }
                Ok(())
            }
            other => Err(broken(&format!("a message of kind {} during the start-up", other.escape_ascii()))),
        }
    }

    fn status(&mut self, body: &[u8]) -> Result<u8, Fault> {
        match body {
            [status @ (b'I' | b'T' | b'E')] => {
                self.state.status = *status;
                Ok(*status)
            }
            _ => Err(broken("a ReadyForQuery without a known status")),
        }
    }

    /// A message about the unit at the head.
    #[inline]
    fn of_head(&mut self, kind: u8, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        match kind {
            b'D' => {
                self.row(body)?;
                self.stream_rows(false, out);
                return Ok(());
            }
            b'G' | b'H' | b'd' | b'c' => return self.copy(kind, body, out),
            b'Z' => return self.ready_for_query(body, out),
            b'E' => return self.error(body, out),
            _ => {}
        }
        let Some(unit) = self.units.front_mut() else { return Err(unasked(kind)) };
        match (kind, unit) {
            (b'3', _) => {}
            (b'1', _) => self.units.head.parsed = true,
            (b'2', Kind::Execute(execution)) => {
                let begins = !execution.parses;
                if begins && !self.answer.begin(&execution.description.columns) {
                    return Err(unasked(kind));
                }
                self.units.head.bound = true;
                if begins {
                    self.accept(out);
                }
            }
            (b't', Kind::Describe(draft)) => {
                draft.parameters = parameters(body).ok_or_else(|| cut_short("ParameterDescription"))?;
            }
            (b'T', _) => {
                self.described(body)?;
                self.accept(out);
            }
            (b'n', Kind::Execute(execution)) => {
                if !execution.description.columns.all.is_empty() {
                    self.units.head.columns = Some(Columns::nothing());
                }
                if !self.answer.begin(&Columns::nothing()) {
                    return Err(unasked(kind));
                }
                self.accept(out);
            }
            (b'n', Kind::Describe(_)) => {}
            (b'C', unit) => {
                let tag = Fields(body).text().ok_or_else(|| cut_short("CommandComplete"))?;
                let is_script = matches!(unit, Kind::Script { .. });
                if unit.owner().is_some() {
                    if !is_script && self.answer.statements() > 0 {
                        return Err(unasked(kind));
                    }
                    self.stream_rows(true, out);
                    self.tell_copied(1, out);
                    self.answer.end(tag, is_script);
                    if is_script {
                        self.units.head.columns = None;
                    }
                    self.state.defines |= tag.starts_with(b"CREATE") || redefines(tag);
                    // What a transaction has made is another thing, or none, once it is rolled back.
                    if redefines(tag) || tag == b"ROLLBACK" && self.state.defines {
                        self.shared.lock().redefined();
                    }
                    // Every name of ours may be gone.
                    if tag.starts_with(b"DEALLOCATE") || tag == b"DISCARD ALL" {
                        self.prepared.clear();
                    }
                }
            }
            (b'I', unit) => {
                if unit.owner().is_some() {
                    let is_script = matches!(unit, Kind::Script { .. });
                    if !is_script && self.answer.statements() > 0 {
                        return Err(unasked(kind));
                    }
                    self.answer.end(b"", is_script);
                }
            }
            (b'W', _) => return Err(broken("the server began a replication that nobody asked for")),
            _ => return Err(unasked(kind)),
        }
        Ok(())
    }

    /// The request at the head, if its rows are wanted as they come and it is waited for.
    fn streamer(&self) -> Option<RequestId> {
        match self.units.front() {
            Some(Kind::Execute(execution)) if execution.owner.streams => {
                Some(execution.owner.id).filter(|id| !self.cancelled.contains(id))
            }
            _ => None,
        }
    }

    /// Tells the columns of rows that are wanted as they come.
    fn accept(&self, out: &mut Out<'_>) {
        if let (Some(id), Some(Kind::Execute(execution))) = (self.streamer(), self.units.front()) {
            let columns = self.units.head.columns.as_ref().unwrap_or(&execution.description.columns);
            out.events.emit(Event::Accepted { id, body: Body::Msgpack(&columns.told) });
        }
    }

    #[inline]
    fn stream_rows(&mut self, all: bool, out: &mut Out<'_>) {
        if matches!(self.units.front(), Some(Kind::Execute(execution)) if execution.owner.streams)
            && let Some(rows) = self.answer.take_rows(all)
            && let Some(id) = self.streamer()
        {
            out.events.emit(Event::Chunk { of: Of::Request(id), body: Body::Msgpack(&rows) });
        }
    }

    fn described(&mut self, body: &[u8]) -> Result<(), Fault> {
        let all = Columns::read(body).ok_or_else(|| cut_short("RowDescription"))?;
        let (Some(unit), head) = self.units.front_and_head() else { return Err(unasked(b'T')) };
        match unit {
            Kind::Describe(draft) => draft.columns = all,
            Kind::Learn(_) | Kind::Role => {}
            Kind::Execute(execution) => {
                let known = &execution.description.columns;
                let begun = if all == known.all {
                    self.answer.begin(known)
                } else {
                    let columns = Columns::new(all, &self.shared.lock().types, false);
                    let begun = self.answer.begin(&columns);
                    head.columns = Some(columns);
                    begun
                };
                if !begun {
                    return Err(unasked(b'T'));
                }
            }
            Kind::Script { .. } => {
                let columns = Columns::new(all, &self.shared.lock().types, false);
                if !self.answer.begin(&columns) {
                    return Err(unasked(b'T'));
                }
                head.columns = Some(columns);
            }
            _ => return Err(unasked(b'T')),
        }
        Ok(())
    }

    #[inline]
    fn row(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (unit, head) = self.units.front_and_head();
        let told = match (unit, &mut head.columns) {
            (Some(Kind::Execute(_) | Kind::Script { .. }), Some(columns)) => {
                self.answer.row(&columns.all, body, &self.shared.lock().types)
            }
            (Some(Kind::Execute(execution)), None) => {
                let columns = &execution.description.columns;
                self.answer.row(&columns.all, body, &self.shared.lock().types)
            }
            (Some(Kind::Learn(_)), _) => fields(body).map(|row| {
                // A type that cannot be understood is one that stays unknown.
                let _ = self.shared.lock().types.learn(&row);
            }),
            (Some(Kind::Role), _) => fields(body).and_then(|row| {
                head.role = Some(Told::read(&row)?);
                Some(())
            }),
            _ => return Err(unasked(b'D')),
        };
        told.ok_or_else(|| broken("a row that does not fit its description"))
    }

    /// A message of more bytes than the limit allows: its request fails, and the conn goes on.
    pub fn too_large(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.units.front().and_then(Kind::owner).is_none() {
            let max = self.limits.message_bytes_max;
            let message = format!("a message of {bytes} bytes came: the limit is {max} (max_reply)");
            return Err(Fault { kind: FaultKind::TooLarge, message });
        }
        self.answer.too_large();
        Ok(())
    }

    fn error(&mut self, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        let error = ServerError::read(body).ok_or_else(|| cut_short("ErrorResponse"))?;
        if error.is_fatal() || self.units.is_empty() {
            return Err(self.ended(&error, out));
        }
        self.units.head.error.get_or_insert(error);
        Ok(())
    }

    /// The server ends the conn. The request at the head knows why, if it was begun; nothing behind it was.
    fn ended(&mut self, error: &ServerError, out: &mut Out<'_>) -> Fault {
        let begun = match self.units.front() {
            Some(Kind::Execute(_)) => self.units.head.bound,
            _ => true,
        };
        let owner = self.units.front().and_then(Kind::owner).filter(|owner| begun && owner.part.is_none());
        if let Some(owner) = owner {
            self.units.pop();
            self.finish(owner, Outcome::Error(error.clone()), out);
        }
        let shutdown = matches!(&*error.code, "57P01" | "57P02" | "57P03");
        if shutdown && self.limits.follow == Follow::Roles && self.state.status == IDLE {
            self.hand_back(error, out);
        }
        let message = format!("the server ended the conn: {} ({})", error.text(), error.code);
        Fault { kind: FaultKind::Closed, message }
    }

    /// None of the requests under way was begun. Of a batch, some parts may have been.
    fn hand_back(&mut self, error: &ServerError, out: &mut Out<'_>) {
        let is_single = |owner: &Owner| owner.part.is_none();
        let mut owners = Vec::new();
        while let Some((unit, _)) = self.units.pop() {
            match unit.owner() {
                Some(owner) if is_single(&owner) => owners.push(owner),
                Some(owner) => self.waiting.push_front(Waiting { owner, body: Box::default(), again: false }),
                None => {}
            }
        }
        self.waiting.retain(|waiting| {
            let hands = is_single(&waiting.owner);
            if hands {
                owners.push(waiting.owner);
            }
            !hands
        });
        owners.sort_unstable_by_key(|owner| owner.sequence);
        for owner in owners {
            self.finish(owner, Outcome::Rejected(error.clone(), Rejection::NotServing), out);
        }
    }

    fn ready_for_query(&mut self, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        let status = self.status(body)?;
        let whole = self.units.head.error.is_some() || self.answer.statements() > 0 || self.answer.has_failed();
        if !whole && self.units.front().and_then(Kind::owner).is_some() {
            return Err(broken("a statement without an end"));
        }
        self.state.defines &= status != IDLE;
        let Some((unit, head)) = self.units.pop() else { return Err(unasked(b'Z')) };
        let exposed = self.interrupt.popped();
        match unit {
            Kind::Describe(draft) => self.statement_described(*draft, head, exposed, out),
            Kind::Learn(draft) => self.look_up(*draft, out),
            Kind::Execute(execution) => self.executed(*execution, head, exposed, out),
            Kind::Script { owner, procedure, body } => {
                self.script_ended(owner, procedure, body.filter(|_| exposed), head, out);
            }
            Kind::Copy { owner, .. } => self.copy_ended(owner, head, out),
            Kind::Heartbeat => self.heartbeat_answered(),
            Kind::Role => {
                self.heartbeat_answered();
                let again = self.role_told(head.role, head.error.is_some(), out);
                if !again && self.phase == Phase::Asking {
                    self.ready(out);
                }
            }
            Kind::Rollback | Kind::Discard => {
                self.state.cleanups -= 1;
                self.state.spoiled |= head.error.is_some() || status != IDLE;
            }
            Kind::Listen(channel) => self.listening(channel, head, out),
            Kind::Unlisten(channel) => {
                self.topics.remove(&channel);
            }
        }
        self.answer.clear();
        self.copied.clear();
        if !self.waiting.is_empty() && !self.holds() {
            self.send_waiting(out);
        }
        if status != IDLE && !self.state.tenant && self.state.cleanups == 0 && !self.closing {
            // Nobody has the conn to himself, so nobody will end it.
            self.roll_back(out.wire);
        }
        Ok(())
    }

    /// The server told what a statement is, or that it is none.
    fn statement_described(&mut self, draft: Draft, head: Progress, exposed: bool, out: &mut Out<'_>) {
        let Some(error) = head.error else { return self.look_up(draft, out) };
        if self.is_hit(&error, exposed, false) {
            // Whoever needs it has it learnt once more.
            return;
        }
        if draft.ahead {
            // Its turn may find it right.
            return;
        }
        let depth_max = self.limits.depth_max;
        let is_its = |waiting: &Waiting| {
            let asked = super::request::Asked::read(&waiting.body, depth_max);
            asked.is_ok_and(|asked| asked.parts[0].0.sql() == &*draft.text)
        };
        if let Some(waiting) = self.waiting.iter().position(is_its).and_then(|at| self.waiting.remove(at)) {
            let outcome = self.judged(error, false);
            self.finish(waiting.owner, outcome, out);
        }
    }

    /// Asks the catalog for types that the statement has and nobody knows yet; after that, the statement is learnt.
    fn look_up(&mut self, mut draft: Draft, out: &mut Out<'_>) {
        let columns = draft.columns.iter().map(|column| column.oid);
        let mut missing = self.shared.lock().types.missing(draft.parameters.iter().copied().chain(columns));
        missing.retain(|oid| !draft.asked.contains(oid));
        if missing.is_empty() || draft.asked.len() + missing.len() > LOOKUPS_MAX || self.state.status == b'E' {
            return self.learnt(draft, out.wire);
        }
        let list: Vec<String> = missing.iter().map(u32::to_string).collect();
        wire::query(out.wire, super::types::Types::QUERY.replace("{OIDS}", &list.join(",")).as_bytes());
        draft.asked.append(&mut missing);
        self.units.push(Kind::Learn(Box::new(draft)));
    }

    #[inline]
    fn executed(&mut self, execution: Execution, mut head: Progress, exposed: bool, out: &mut Out<'_>) {
        let Execution { owner, description, parses, number, again, procedure } = execution;
        if parses && number != 0 && !head.parsed {
            self.prepared.remove(&*description.text);
        }
        if let Some(mut error) = head.error.take() {
            if exposed && let Some(body) = again.as_ref().filter(|_| self.is_hit(&error, exposed, procedure)) {
                self.waiting.push_front(Waiting { owner, body: body.clone(), again: false });
                return;
            }
            let is_gone = error.code == "26000";
            if (is_gone || is_stale(&error)) && !head.bound {
                self.forget(&description.text, !is_gone);
                if let Some(body) = again.filter(|_| self.state.status == IDLE) {
                    self.waiting.push_front(Waiting { owner, body, again: true });
                    return;
                }
                if is_gone {
                    error.advise("is there a pooler in transaction mode? Open the endpoint with prepare=false");
                }
            }
            let outcome = self.judged(error, procedure);
            return self.finish(owner, outcome, out);
        }
        if head.columns.is_some() {
            self.forget(&description.text, true);
        }
        self.finish(owner, Outcome::Reply, out);
    }

    /// `again`: its body, if a word for another may have hit it.
    fn script_ended(
        &mut self,
        owner: Owner,
        procedure: bool,
        again: Option<Box<[u8]>>,
        head: Progress,
        out: &mut Out<'_>,
    ) {
        // What ended before an error may be committed: a script can say COMMIT.
        let may_have_acted = procedure || self.answer.statements() > 0;
        let outcome = match head.error {
            Some(error) if again.is_some() && self.is_hit(&error, true, may_have_acted) => {
                let body = again.unwrap_or_default();
                return self.waiting.push_front(Waiting { owner, body, again: false });
            }
            Some(error) => self.judged(error, may_have_acted),
            None => Outcome::Script,
        };
        self.finish(owner, outcome, out);
    }

    /// Whether an error says that nothing was executed, so that another server may. `may_have_acted`: something may be
    /// committed before it.
    pub fn judged(&self, error: ServerError, may_have_acted: bool) -> Outcome {
        let follows = self.limits.follow == Follow::Roles && self.state.status == IDLE && !may_have_acted;
        match &*error.code {
            "25006" if follows => Outcome::Rejected(error, Rejection::NotPrimary),
            _ => Outcome::Error(error),
        }
    }

    /// A part of a request is over.
    pub fn finish(&mut self, owner: Owner, outcome: Outcome, out: &mut Out<'_>) {
        let outcome = match (outcome, self.answer.failure()) {
            (Outcome::Reply | Outcome::Script, Some(error)) => Outcome::Error(error),
            (outcome, _) => outcome,
        };
        let is_replica = matches!(&outcome, Outcome::Rejected(_, Rejection::NotPrimary));
        match owner.part {
            Some(part) => self.gather(owner, part as usize, outcome, out),
            None => self.tell(owner, outcome, out),
        }
        if is_replica {
            super::follow::emit_replica(out);
        }
    }

    #[inline]
    fn tell(&mut self, owner: Owner, outcome: Outcome, out: &mut Out<'_>) {
        self.requests -= 1;
        if !self.cancelled.is_empty() && self.cancelled.remove(&owner.id) {
            return;
        }
        let id = owner.id;
        self.scratch.clear();
        let event = match outcome {
            Outcome::Reply => Event::Reply { id, error: false, body: Body::Msgpack(self.answer.whole()) },
            Outcome::Script => Event::Reply { id, error: false, body: Body::Msgpack(self.answer.script()) },
            Outcome::Error(error) => {
                error.body(&mut self.scratch);
                Event::Reply { id, error: true, body: Body::Msgpack(&self.scratch) }
            }
            Outcome::Rejected(error, why) => {
                error.body(&mut self.scratch);
                Event::Rejected { id, why, body: Body::Msgpack(&self.scratch) }
            }
            Outcome::Refused(refusal) => Event::Refused { id, refusal },
            Outcome::Nothing => return,
        };
        out.events.emit(event);
    }

    /// One reply of a batch; the last one delivers them all.
    fn gather(&mut self, owner: Owner, part: usize, outcome: Outcome, out: &mut Out<'_>) {
        let Some(gather) = self.batches.get_mut(&owner.sequence) else { return };
        let mut reply = Vec::new();
        match outcome {
            Outcome::Reply => reply.extend_from_slice(self.answer.whole()),
            Outcome::Script => reply.extend_from_slice(self.answer.script()),
            Outcome::Error(error) | Outcome::Rejected(error, _) => {
                let open = write::ext_open(&mut reply, IOK_EXT_ERROR);
                error.body(&mut reply);
                write::ext_close(&mut reply, open);
            }
            Outcome::Refused(refusal) => {
                write::error_ext(&mut reply, IOK_EXT_ERROR, refusal.code.as_bytes(), refusal.message.as_bytes());
            }
            Outcome::Nothing => write::nil(&mut reply),
        }
        gather.left -= 1;
        gather.bytes += reply.len();
        if gather.bytes > self.limits.message_bytes_max {
            gather.replies.iter_mut().for_each(|reply| *reply = Vec::new());
        } else if let Some(place) = gather.replies.get_mut(part) {
            *place = reply;
        }
        if gather.left > 0 {
            return;
        }
        let Some(Gather { replies, bytes, .. }) = self.batches.remove(&owner.sequence) else { return };
        self.requests -= 1;
        if self.cancelled.remove(&owner.id) {
            return;
        }
        self.scratch.clear();
        let max = self.limits.message_bytes_max;
        let error = bytes > max;
        if error {
            let message = format!("a batch's replies exceed {max} bytes: raise max_reply, or ask for less");
            write::error(&mut self.scratch, b"TOOLARGE", message.as_bytes());
        } else {
            write::array(&mut self.scratch, replies.len() as u32);
            replies.iter().for_each(|reply| self.scratch.extend_from_slice(reply));
        }
        out.events.emit(Event::Reply { id: owner.id, error, body: Body::Msgpack(&self.scratch) });
    }

    /// NotificationResponse: the process that notified, the channel, the payload.
    fn notification(&mut self, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        let mut fields = Fields(body);
        let told = (|| Some((fields.uint32()?, fields.text()?, fields.text()?)))();
        let (process, channel, payload) = told.ok_or_else(|| cut_short("NotificationResponse"))?;
        if self.topics.contains(channel) {
            self.scratch.clear();
            write::array(&mut self.scratch, 4);
            write::str(&mut self.scratch, b"notification");
            write::str(&mut self.scratch, channel);
            write::str(&mut self.scratch, payload);
            write::uint(&mut self.scratch, u64::from(process));
            out.events.emit(Event::Push { topic: Some(channel), body: Body::Msgpack(&self.scratch) });
        }
        Ok(())
    }

    fn listening(&mut self, channel: Box<[u8]>, head: Progress, out: &mut Out<'_>) {
        match head.error {
            None => {
                out.events.emit(Event::Subscribed { topic: &channel });
                self.topics.insert(channel);
            }
            Some(error) => {
                self.scratch.clear();
                error.body(&mut self.scratch);
                let error = Some(Body::Msgpack(&self.scratch));
                out.events.emit(Event::Unsubscribed { topic: &channel, error });
            }
        }
    }
}

/// The statement is not what it was when it was learnt.
fn is_stale(error: &ServerError) -> bool {
    match &*error.code {
        "0A000" => error.message.contains("cached plan must not change result type"),
        // The number of columns is another one.
        "08P01" => error.message.contains("result formats"),
        _ => false,
    }
}

fn parameters(body: &[u8]) -> Option<Vec<u32>> {
    let mut fields = Fields(body);
    let count = fields.count()?;
    (0..count).map(|_| fields.uint32()).collect()
}

/// The values of a row as they are.
fn fields(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut fields = Fields(body);
    let count = fields.count()?;
    (0..count).map(|_| fields.value()).collect()
}

#[cold]
pub fn cut_short(name: &str) -> Fault {
    broken(&format!("a message that ends too soon: {name}"))
}

#[cold]
pub fn unasked(kind: u8) -> Fault {
    broken(&format!("a message of kind {} that nobody asked for", kind.escape_ascii()))
}
