//! One history: holders, a thief, an operator, time, and a process that dies and starts again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rotogate::denial::Denial;
use rotogate::fault::Error;
use rotogate::session::{Generation, SessionId};
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::engine::{IssueKind, IssuedTokens, kind_of_issue};
use rotogate_core::session::rotation::REVOKED;

use crate::gate::{Done, GRACE, Gate, LAX, WINDOW, Work, generation, poll};
use crate::store::{Faulty, Plant, Trust};
use support::random::Random;

const T0: Timestamp = Timestamp::from_millis(1_700_000_000_400);
/// Steps of a history.
const STEPS: u64 = 60;
/// How often the last remaining request may wait.
const PATIENCE: usize = 1000;

/// The counts of all histories.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    rotated: u64,
    replayed: u64,
    reissued: u64,
    reuse: u64,
    ahead: u64,
    revoked: u64,
    refused: u64,
    failed: u64,
    lost_replies: u64,
    crashes: u64,
    losses: u64,
    thefts: u64,
    paid: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.rotated += other.rotated;
        self.replayed += other.replayed;
        self.reissued += other.reissued;
        self.reuse += other.reuse;
        self.ahead += other.ahead;
        self.revoked += other.revoked;
        self.refused += other.refused;
        self.failed += other.failed;
        self.lost_replies += other.lost_replies;
        self.crashes += other.crashes;
        self.losses += other.losses;
        self.thefts += other.thefts;
        self.paid += other.paid;
    }

    /// A run without progress proves nothing.
    pub(crate) fn assert_everything_happened(&self) {
        let all = [
            self.rotated,
            self.replayed,
            self.reissued,
            self.reuse,
            self.ahead,
            self.revoked,
            self.refused,
            self.failed,
            self.lost_replies,
            self.crashes,
            self.losses,
            self.thefts,
            self.paid,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }
}

/// A holder of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    Thief,
}

#[derive(Clone, Debug, Default)]
struct Holder {
    /// Stored; empty without a token.
    token: String,
    generation: Generation,
    /// The time of its first use, in felt time.
    first: Option<Timestamp>,
    /// The time of the holder's last request or reply.
    acted: Timestamp,
}

/// A session, and the knowledge of its holders.
struct Chain {
    id: SessionId,
    subject: String,
    owner: Holder,
    thief: Option<Holder>,
    /// Every refresh token, including those of lost replies.
    made: BTreeMap<Generation, String>,
    /// The highest generation that any holder received.
    received: Generation,
    rotations_since_theft: u32,
    /// Owner and thief acted within each other's grace, so they share one pair.
    together: bool,
    /// A holder requested the end of the session, or caused it.
    end_asked: bool,
    /// The end was acknowledged.
    ended: bool,
    /// The store failed when this process wrote the end, so the end is owed.
    end_owed: bool,
    /// The owner of the session has given up.
    over: bool,
}

impl Chain {
    /// Is the owner the only holder?
    fn is_sole(&self) -> bool {
        self.thief.is_none()
    }
}

enum What {
    Refresh(Who, String),
    End(Vec<usize>),
    /// The flush, with the sessions whose end is owed.
    Flush(Vec<usize>),
}

/// A request in progress.
struct Flight {
    chain: usize,
    what: What,
    begun: Timestamp,
    /// The begin in felt time.
    begun_felt: Timestamp,
    /// If the same holder had another request with the same token in flight: the time of the token's first use, and the
    /// begin of the earlier request, in felt time.
    beside: Option<(Timestamp, Timestamp)>,
    /// The end of the session was acknowledged before the request began.
    after_end: bool,
    work: Work,
}

/// See the module.
pub(crate) struct World {
    random: Random,
    trust: Trust,
    time: Arc<ManualTime>,
    store: Arc<Faulty>,
    gate: Gate,
    /// Engine time may begin earlier after a crash, as far back as the last write, if the wall clock was set back. Felt
    /// time never does: it is a lower bound of the time that has passed for every process.
    felt: Timestamp,
    last: Timestamp,
    rules: usize,
    /// Prints the steps, if only one history runs.
    tells: bool,
    chains: Vec<Chain>,
    flights: Vec<Flight>,
    counts: Counts,
}

impl World {
    pub(crate) fn new(mut random: Random, trust: Trust, plant: Plant, tells: bool) -> Self {
        let time = ManualTime::at(T0);
        let store = Arc::new(Faulty::new(trust, plant, random.fork()));
        let lax = if plant == Plant::ReplaysPastGrace { LAX } else { 0 };
        let rules = lax + usize::from(random.one_in(2));
        let gate = Gate::start(&time, &store, rules);
        let chains = (0..=random.below(2)).map(|n| Chain::begin(&gate, format!("user{n}"))).collect();
        store.save();
        store.set_quiet(false);
        Self {
            random,
            trust,
            time,
            store,
            gate,
            rules,
            tells,
            chains,
            flights: Vec::new(),
            felt: T0,
            last: T0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn run(mut self, counts: &mut Counts) -> Result<(), String> {
        let all = self.play();
        counts.add(&self.counts);
        all
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.feel();
            self.step()?;
            if let Some(broken) = self.store.commits.lock().unwrap().broken.take()
                && self.trust == Trust::KeepsItsWord
            {
                return Err(broken);
            }
        }
        self.at_the_end()
    }

    fn step(&mut self) -> Result<(), String> {
        let chain = usize::try_from(self.random.below(self.chains.len() as u64)).unwrap();
        match self.random.below(100) {
            0..=21 => self.begin_refresh(chain),
            22..=61 => return self.go_on(),
            62..=73 => return self.use_access(chain),
            74..=78 => self.flush(),
            79..=88 => self.pass_time(),
            89..=90 => self.step_clock(),
            91..=93 => self.crash(),
            94..=95 => self.steal(chain),
            96 => self.present_old(chain),
            97 => self.end(chain),
            _ => self.lose_writes(),
        }
        Ok(())
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:?} {}", self.gate.now(), what());
        }
    }

    fn take_off(&mut self, chain: usize, what: What, work: Work) {
        self.tell(|| match &what {
            What::Refresh(who, token) => format!("session {chain}: {who:?} presents {}", generation(token)),
            What::End(_) => format!("session {chain}: its end is asked for"),
            What::Flush(_) => "confirmations and debts are written".to_owned(),
        });
        let (begun, begun_felt) = (self.gate.now(), self.felt);
        let after_end = self.chains[chain].ended;
        self.flights.push(Flight { chain, what, begun, begun_felt, beside: None, after_end, work });
    }

    fn begin_refresh(&mut self, at: usize) {
        let who = if self.chains[at].thief.is_some() && self.random.one_in(2) { Who::Thief } else { Who::Owner };
        let now = self.gate.now();
        let under_way = self.flights.iter().filter(|flight| flight.chain == at);
        let same = under_way.filter(|flight| matches!(&flight.what, What::Refresh(by, _) if *by == who)).count();
        // Sometimes a second tab.
        if same > 1 || (same == 1 && !self.random.one_in(6)) {
            return;
        }
        let chain = &mut self.chains[at];
        if chain.over {
            return;
        }
        chain.acts(who, now);
        let Some(holder) = chain.holder(who).filter(|holder| !holder.token.is_empty()) else { return };
        if same == 1 && holder.first.is_none() {
            // The first request was answered with a new token, so the holder waits for the second.
            return;
        }
        let first = *holder.first.get_or_insert(self.felt);
        let token = holder.token.clone();
        let work = self.gate.refresh(&token);
        self.take_off(at, What::Refresh(who, token), work);
        if same == 1 {
            let refreshes = |flight: &&mut Flight| matches!(&flight.what, What::Refresh(by, _) if *by == who);
            let mut both: Vec<_> =
                self.flights.iter_mut().filter(|flight| flight.chain == at).filter(refreshes).collect();
            let earliest = both.iter().map(|flight| flight.begun_felt).min();
            both.iter_mut().for_each(|flight| flight.beside = earliest.map(|earliest| (first, earliest)));
            self.follow_the_clock();
        }
    }

    /// A thief with an older token, or with an old back-up of the owner's.
    fn present_old(&mut self, at: usize) {
        let chain = &mut self.chains[at];
        if chain.is_sole() || chain.over {
            return;
        }
        let nth = usize::try_from(self.random.below(chain.made.len() as u64)).unwrap();
        let token = chain.made.values().nth(nth).unwrap().clone();
        // Here holders may act at any time.
        chain.together = true;
        let work = self.gate.refresh(&token);
        self.take_off(at, What::Refresh(Who::Thief, token), work);
    }

    fn end(&mut self, at: usize) {
        if !self.random.one_in(2) {
            return;
        }
        let subject = self.chains[at].subject.clone();
        self.chains[at].end_asked = true;
        let work = if self.random.one_in(2) && !self.chains[at].owner.token.is_empty() {
            self.gate.log_out(&self.chains[at].owner.token)
        } else {
            self.gate.revoke_subject(&subject)
        };
        self.take_off(at, What::End(vec![at]), work);
    }

    fn flush(&mut self) {
        let work = self.gate.flush();
        let owed = (0..self.chains.len()).filter(|at| self.chains[*at].end_owed).collect();
        self.take_off(0, What::Flush(owed), work);
    }

    fn pass_time(&mut self) {
        let second = Duration::from_secs(1);
        let longest = [Duration::from_millis(1), second, GRACE / 2, GRACE, GRACE + second, WINDOW / 3, WINDOW];
        let by = longest[usize::try_from(self.random.below(longest.len() as u64)).unwrap()];
        self.time.advance(by);
        self.tell(|| format!("{by:?} pass"));
        self.follow_the_clock();
    }

    fn feel(&mut self) {
        let now = self.gate.now();
        self.felt = self.felt.plus(now.since(self.last));
        self.last = now;
    }

    fn follow_the_clock(&mut self) {
        self.gate.follow_the_clock();
        self.feel();
        let (now, felt) = (self.gate.now(), self.felt);
        for flight in &self.flights {
            let chain = &mut self.chains[flight.chain];
            // Two requests of one holder, and grace ends before one of them runs: the holder may have used the reply to
            // the other.
            let is_late = |(first, begun): (Timestamp, Timestamp)| begun < felt && felt.since(first) >= GRACE;
            if flight.beside.is_some_and(is_late) {
                chain.excuse();
            }
            chain.together |= now.since(flight.begun) >= GRACE;
        }
    }

    /// Moves only the wall clock: back, forward, or absurdly far forward.
    fn step_clock(&mut self) {
        let wall = self.gate.now();
        let to = match self.random.below(3) {
            0 => wall.minus(Duration::from_secs(self.random.below(7200))),
            1 => wall.plus(Duration::from_secs(self.random.below(20))),
            _ => wall.plus(Duration::from_secs(7200)),
        };
        self.time.set_wall(to);
        self.tell(|| format!("the wall clock says {to:?}"));
        self.follow_the_clock();
    }

    fn crash(&mut self) {
        self.counts.crashes += 1;
        self.tell(|| "the process dies".to_owned());
        self.flights.clear();
        self.feel();
        self.gate = Gate::start(&self.time, &self.store, self.rules);
        self.feel();
        for chain in &mut self.chains {
            chain.end_owed = false;
            if self.trust == Trust::LosesWrites {
                // The end of the process loses state that the store had lost before.
                chain.ended &= !self.gate.passes(chain.id, &chain.subject, Generation::new(REVOKED.get() - 1));
            }
        }
        // The wall clock is corrected while the machine starts.
        if self.random.one_in(2) {
            self.time.set_wall(self.gate.now());
        }
    }

    fn lose_writes(&mut self) {
        if self.trust == Trust::KeepsItsWord {
            return;
        }
        if self.random.one_in(3) {
            self.store.save();
            return;
        }
        self.counts.losses += 1;
        self.tell(|| "the store loses its last writes".to_owned());
        self.store.lose_writes();
    }

    fn steal(&mut self, at: usize) {
        let chain = &mut self.chains[at];
        if chain.is_sole() && !chain.over && !chain.owner.token.is_empty() && self.random.one_in(3) {
            self.counts.thefts += 1;
            if self.tells {
                println!("session {at}: a theft");
            }
            chain.thief = Some(Holder { first: None, ..chain.owner.clone() });
            chain.rotations_since_theft = 0;
            chain.together = self.flights.iter().any(|flight| flight.chain == at);
        }
    }

    fn use_access(&mut self, at: usize) -> Result<(), String> {
        let chain = &self.chains[at];
        let who = if chain.thief.is_some() && self.random.one_in(2) { Who::Thief } else { Who::Owner };
        let holder = if who == Who::Owner { Some(&chain.owner) } else { chain.thief.as_ref() };
        let Some(holder) = holder.filter(|holder| !holder.token.is_empty()) else { return Ok(()) };
        let passes = self.gate.uses(chain.id, &chain.subject, holder.generation);
        self.tell(|| format!("session {at}: {who:?} uses {}: {passes}", holder.generation));
        if passes && chain.ended {
            return Err("R2, promise 4: an access token passes after its end was acknowledged".to_owned());
        }
        let live = chain.is_sole() && !chain.end_asked && self.trust == Trust::KeepsItsWord;
        if live && !passes && holder.first.is_none() {
            return Err("R2: the last access token that its sole holder got is refused".to_owned());
        }
        Ok(())
    }

    /// Advances one request by some steps, perhaps to its end.
    fn go_on(&mut self) -> Result<(), String> {
        if self.flights.is_empty() {
            return Ok(());
        }
        let nth = usize::try_from(self.random.below(self.flights.len() as u64)).unwrap();
        for _ in 0..=self.random.below(10) {
            if let Some(done) = poll(&mut self.flights[nth].work) {
                let flight = self.flights.swap_remove(nth);
                return self.land(&flight, done);
            }
        }
        Ok(())
    }

    fn land(&mut self, flight: &Flight, done: Done) -> Result<(), String> {
        match (&flight.what, done) {
            (What::Refresh(who, token), Done::Refreshed(came)) => self.refreshed(flight, *who, token, came),
            (What::End(chains), Done::Revoked(Ok(true))) => {
                self.counts.revoked += 1;
                chains.iter().try_for_each(|at| self.ended(*at))
            }
            // Holds whether the store still has the record or has lost it.
            (What::End(_), Done::Revoked(Ok(false) | Err(Error::Denied(_)))) => {
                Err("R26: a token that we made is unknown".to_owned())
            }
            (What::End(chains), Done::Revoked(Err(Error::Failed(_)))) => {
                chains.iter().for_each(|at| self.chains[*at].end_owed = true);
                Ok(())
            }
            (What::Flush(owed), Done::Flushed(true)) => {
                self.counts.paid += owed.len() as u64;
                owed.iter().try_for_each(|at| self.ended(*at))
            }
            (What::Flush(_), Done::Flushed(false)) => Ok(()),
            (What::Refresh(..) | What::End(_) | What::Flush(_), _) => unreachable!("an answer to another question"),
        }
    }

    /// An end was acknowledged: from here on no token of the session passes.
    fn ended(&mut self, at: usize) -> Result<(), String> {
        let chain = &mut self.chains[at];
        chain.ended = true;
        chain.end_asked = true;
        chain.end_owed = false;
        let passes = |generation: &Generation| self.gate.passes(chain.id, &chain.subject, *generation);
        if chain.made.keys().any(passes) {
            return Err("R2: an access token passes at the moment at which its end is acknowledged".to_owned());
        }
        Ok(())
    }

    fn refreshed(
        &mut self,
        flight: &Flight,
        who: Who,
        token: &str,
        came: Result<IssuedTokens, Error>,
    ) -> Result<(), String> {
        self.tell(|| {
            let what = match &came {
                Ok(issued) => {
                    let text = issued.refresh_token.as_ref().expect("a session has one").expose();
                    format!("{:?}, {}", kind_of_issue(issued), generation(text))
                }
                Err(error) => format!("{error:?}"),
            };
            format!("session {}: {who:?} gets for {}: {what}", flight.chain, generation(token))
        });
        match came {
            Ok(issued) => self.served(flight, who, token, &issued),
            Err(Error::Failed(_)) => {
                self.counts.failed += 1;
                Ok(())
            }
            Err(Error::Denied(denial)) => self.denied(flight, who, token, &denial),
        }
    }

    fn denied(&mut self, flight: &Flight, who: Who, token: &str, denial: &Denial) -> Result<(), String> {
        self.feel();
        let now = self.felt;
        let honest = self.trust == Trust::KeepsItsWord;
        let chain = &mut self.chains[flight.chain];
        let sole = chain.is_sole();
        let holder = chain.holder(who);
        let in_window = holder.is_some_and(|holder| holder.first.is_some_and(|first| now.since(first) < WINDOW));
        match denial {
            Denial::Reuse { .. } => {
                self.counts.reuse += 1;
                if sole && in_window {
                    return Err("promise 2: the sole holder is answered Reuse inside the window".to_owned());
                }
                chain.give_up(who);
                self.ended(flight.chain)
            }
            Denial::Ahead | Denial::UnknownRefreshToken if !honest => {
                self.counts.ahead += 1;
                chain.give_up(who);
                Ok(())
            }
            // A reuse without an answer ended the session, too.
            Denial::SessionRevoked(_) if chain.end_asked || !sole || !in_window => {
                self.counts.refused += 1;
                chain.give_up(who);
                Ok(())
            }
            Denial::SessionExpired | Denial::SessionIdle => {
                chain.give_up(who);
                Ok(())
            }
            other => Err(format!("R2: a token of a live session is refused: {other:?}, {}", generation(token))),
        }
    }

    fn served(&mut self, flight: &Flight, who: Who, token: &str, issued: &IssuedTokens) -> Result<(), String> {
        let honest = self.trust == Trust::KeepsItsWord;
        let text = issued.refresh_token.as_ref().expect("a session has one").expose().to_owned();
        let (presented, got) = (generation(token), generation(&text));
        let now = self.gate.now();
        let chain = &mut self.chains[flight.chain];
        if flight.after_end {
            return Err("R2, promise 4: a session goes on whose end was acknowledged".to_owned());
        }
        if chain.made.insert(got, text.clone()).is_some_and(|before| before != text) {
            return Err("R1: two refresh tokens of one generation".to_owned());
        }
        let how = kind_of_issue(issued);
        match how {
            IssueKind::Rotated => self.counts.rotated += 1,
            IssueKind::Replayed => self.counts.replayed += 1,
            IssueKind::Reissued => self.counts.reissued += 1,
            IssueKind::FastForwarded => {
                return Err("O5: a node that held no unbroken copy took a session on".to_owned());
            }
            other => unreachable!("a refresh is no {other:?}"),
        }
        if honest {
            let commits = self.store.commits.lock().unwrap();
            let record = self.store.record(chain.id).ok_or("R2: the record is gone")?;
            if record.current < got {
                return Err("R2: a pair is given out before it is durable".to_owned());
            }
            let since = |moment: Option<Timestamp>| moment.map(|moment| flight.begun.since(moment));
            if how == IssueKind::Replayed && since(commits.issued(chain.id, got)).is_none_or(|since| since >= GRACE) {
                return Err("R3: a replay after grace".to_owned());
            }
            let exchanged = since(commits.exchanged(chain.id, presented));
            if how == IssueKind::Reissued && exchanged.is_none_or(|since| since >= WINDOW) {
                return Err("R3: a reissue after the window".to_owned());
            }
        }
        if how == IssueKind::Reissued {
            let lies_between = (presented.get() + 1..got.get()).map(Generation::new);
            if lies_between.clone().any(|gone| self.gate.passes(chain.id, &chain.subject, gone)) {
                return Err("R3: an access token of an abandoned generation passes".to_owned());
            }
        }
        chain.acts(who, now);
        if self.random.one_in(4) {
            self.counts.lost_replies += 1;
            return Ok(());
        }
        if got > chain.received {
            chain.received = got;
            chain.rotations_since_theft += 1;
        }
        if let Some(holder) = chain.holder(who) {
            *holder = Holder { token: text, generation: got, first: None, acted: now };
        }
        if honest { self.nobody_shares(flight.chain) } else { Ok(()) }
    }

    /// Proof 3: after two rotations since the theft, at most one of the two is served.
    fn nobody_shares(&self, at: usize) -> Result<(), String> {
        let chain = &self.chains[at];
        let Some(thief) = &chain.thief else { return Ok(()) };
        if chain.together || chain.rotations_since_theft < 2 || self.flights.iter().any(|flight| flight.chain == at) {
            return Ok(());
        }
        let served = |holder: &Holder| {
            !holder.token.is_empty() && self.gate.would_serve(chain.id, &chain.subject, holder.generation)
        };
        if served(&chain.owner) && served(thief) {
            return Err("promise 3: owner and thief both go on after two rotations".to_owned());
        }
        Ok(())
    }

    /// Without further faults, exactly those holders continue that may.
    fn at_the_end(&mut self) -> Result<(), String> {
        self.store.set_quiet(true);
        while let Some(mut flight) = self.flights.pop() {
            let done = (0..PATIENCE).find_map(|_| poll(&mut flight.work).or_else(|| self.let_another_go_on()));
            match done {
                Some(done) => self.land(&flight, done)?,
                None => self.flights.insert(0, flight),
            }
        }
        if self.random.one_in(2) {
            self.crash();
        }
        self.time.set_wall(self.gate.now());
        self.follow_the_clock();
        for at in 0..self.chains.len() {
            let now = self.gate.now();
            let chain = &mut self.chains[at];
            if chain.over || chain.owner.token.is_empty() {
                continue;
            }
            let first = *chain.owner.first.get_or_insert(self.felt);
            let must_go_on = chain.is_sole()
                && !chain.end_asked
                && self.trust == Trust::KeepsItsWord
                && self.felt.since(first) < WINDOW;
            let token = chain.owner.token.clone();
            let mut flight = Flight {
                chain: at,
                what: What::Refresh(Who::Owner, token.clone()),
                begun: now,
                begun_felt: self.felt,
                beside: None,
                after_end: chain.ended,
                work: self.gate.refresh(&token),
            };
            let done = poll(&mut flight.work).expect("a quiet store waits for nothing");
            if must_go_on && !matches!(&done, Done::Refreshed(Ok(_))) {
                return Err("R2: the sole holder of a live session cannot go on".to_owned());
            }
            self.land(&flight, done)?;
        }
        match self.store.commits.lock().unwrap().broken.take() {
            Some(broken) if self.trust == Trust::KeepsItsWord => Err(broken),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets another request continue while one waits for its turn.
    fn let_another_go_on(&mut self) -> Option<Done> {
        if !self.flights.is_empty() {
            let nth = usize::try_from(self.random.below(self.flights.len() as u64)).unwrap();
            if let Some(done) = poll(&mut self.flights[nth].work) {
                let flight = self.flights.swap_remove(nth);
                // A promise that is broken here is also broken at the end.
                let _ = self.land(&flight, done);
            }
        }
        None
    }
}

impl Chain {
    fn begin(gate: &Gate, subject: String) -> Self {
        let issued = gate.begin(&subject);
        let token = issued.refresh_token.expect("a session has one").expose().to_owned();
        Self {
            id: issued.session.expect("a session"),
            subject,
            owner: Holder { token: token.clone(), generation: Generation::FIRST, ..Holder::default() },
            thief: None,
            made: BTreeMap::from([(Generation::FIRST, token)]),
            received: Generation::FIRST,
            rotations_since_theft: 0,
            together: false,
            end_asked: false,
            ended: false,
            end_owed: false,
            over: false,
        }
    }

    fn holder(&mut self, who: Who) -> Option<&mut Holder> {
        match who {
            Who::Owner => Some(&mut self.owner),
            Who::Thief => self.thief.as_mut(),
        }
    }

    fn acts(&mut self, who: Who, now: Timestamp) {
        let other = match who {
            Who::Owner => self.thief.as_ref().map(|thief| thief.acted),
            Who::Thief => Some(self.owner.acted),
        };
        self.together |= other.is_some_and(|other| now.since(other) < GRACE);
        if let Some(holder) = self.holder(who) {
            holder.acted = now;
        }
    }

    /// There is no promise for a holder that waits longer than grace with two requests in flight.
    fn excuse(&mut self) {
        if self.thief.is_none() {
            self.thief = Some(Holder::default());
            self.end_asked = true;
        }
        self.together = true;
    }

    fn give_up(&mut self, who: Who) {
        if let Some(holder) = self.holder(who) {
            *holder = Holder::default();
        }
        self.over |= who == Who::Owner;
    }
}
