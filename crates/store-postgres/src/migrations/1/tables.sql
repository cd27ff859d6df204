-- The tables, the indexes and the sequences.
--
-- Times are milliseconds of the server's clock, capped at the largest bigint. Whatever SQL cannot hold in a bigint without
-- a cap, the numbers of effects, is 8 bytes, big-endian: bytea compares them as they are.

create table {s}.head (
    one boolean primary key default true check (one),
    store bytea not null,
    history bytea not null,
    issuer text not null,
    keyring uuid not null,
    -- When the data was adopted after a loss of writes. 0: never.
    adopted bigint not null default 0,
    -- What the log held up to this id may be gone.
    floor bigint not null default 0,
    -- The store that this one is becoming a copy of. Until it is one, no gate opens it.
    copying text
);

-- How many writes there were. It goes back with the data, by which a gate knows that a back-up was restored.
create sequence {s}.writes;

create table {s}.stamp (
    one boolean primary key default true check (one),
    last bigint not null
);

-- A rotation changes no indexed column, so that its new row finds room on the same page, without new index entries.
create table {s}.session (
    id uuid primary key,
    -- What a write compares: the version, whether the session was revoked, its revision, and whose it is.
    state bytea not null,
    ends bigint not null,
    subject bytea not null,
    -- The key of the not-before of its client.
    client bytea not null,
    -- The name of the last write, and the history that it was made in.
    op bytea not null,
    history bytea not null,
    record bytea not null
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);
create index session_subject on {s}.session (subject, id);
create index session_ends on {s}.session (ends);

-- The live revocations, merged. The key is the target, or its digest where that is too long for an index.
create table {s}.revocation (
    key bytea primary key,
    target bytea not null,
    effect bytea not null,
    until bigint not null,
    place bigint not null
);
create index revocation_until on {s}.revocation (until);

create sequence {s}.log_id;
-- The revocations of the last 15 minutes, as they were written.
create table {s}.revocation_log (
    id bigint primary key default nextval('{s}.log_id'),
    written bigint not null,
    target bytea not null,
    effect bytea not null,
    until bigint not null
);

create table {s}.node (
    id bytea primary key,
    beat bigint not null,
    -- What it says of itself.
    said bytea not null,
    -- The last history for which the node has written back what it knew.
    restored bytea
);

create table {s}.relay (
    id bytea primary key,
    version smallint not null,
    op bytea not null,
    mark bytea not null,
    until bigint not null,
    record bytea not null
);
create index relay_until on {s}.relay (until);

-- What changed at all nodes: its state now, and the stamp of the first node that found it.
create table {s}.change (
    name bytea primary key,
    state bytea not null,
    stamp bigint not null,
    until bigint not null
);
create index change_until on {s}.change (until);

-- Counters of attempts: when each is full again, in microseconds, and the name of its last write.
create table {s}.counter (
    name bytea primary key,
    full_at bigint not null,
    op bytea not null
) with (autovacuum_vacuum_scale_factor = 0.02);
create index counter_full_at on {s}.counter (full_at);

-- Names that are remembered.
create table {s}.remembered (
    name bytea primary key,
    until bigint not null
);
create index remembered_until on {s}.remembered (until);
