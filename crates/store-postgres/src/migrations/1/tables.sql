-- The tables, the indexes and the sequences.
--
-- Times are milliseconds of the server's clock, capped at the largest bigint. The numbers in effects need their
-- full range, which a bigint does not have. They are stored as 8 big-endian bytes, which bytea compares in numeric
-- order.

create table {s}.head (
    one boolean primary key default true check (one),
    store bytea not null,
    history bytea not null,
    issuer text not null,
    keyring uuid not null,
    -- The time at which the data was adopted after a loss of writes, or 0 if it never was.
    adopted bigint not null default 0,
    -- The log may no longer contain entries up to this id.
    floor bigint not null default 0,
    -- The name of the store that is being copied into this one. No gate opens the store until the copy is complete.
    copying text
);

-- The number of writes. It goes back together with the data, which shows a gate that a back-up was restored.
create sequence {s}.writes;

create table {s}.stamp (
    one boolean primary key default true check (one),
    last bigint not null
);

-- A rotation does not change an indexed column. Its new row version therefore fits on the same page and needs no
-- new index entries.
create table {s}.session (
    id uuid primary key,
    -- The fields that a write compares: the version, whether the session is revoked, its revision, and a digest of
    -- its subject and client.
    state bytea not null,
    ends bigint not null,
    subject bytea not null,
    -- The key of the not-before of the session's client.
    client bytea not null,
    -- The name of the last write, and the history in which it was made.
    op bytea not null,
    history bytea not null,
    record bytea not null
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);
create index session_subject on {s}.session (subject, id);
create index session_ends on {s}.session (ends);

-- The live revocations, merged by target. The key is the target, or its digest if the target is too long for an
-- index.
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
    -- The report of the node about itself.
    said bytea not null,
    -- The last history for which the node has written back what it knew.
    restored bytea
);

-- The rows of the parts of a gate.
create table {s}.part_row (
    space integer not null,
    key bytea not null,
    format smallint not null,
    version bytea not null,
    until bigint not null,
    bytes bytea not null,
    primary key (space, key)
);
create index part_row_until on {s}.part_row (space, until);

-- The number of rows in each of 64 shares of a space, by the last byte of the key. One counter would be locked by every
-- insert.
create table {s}.part_row_count (
    space integer not null,
    share smallint not null,
    rows bigint not null,
    primary key (space, share)
) with (fillfactor = 50);

-- Changes that every node detects: the present state, and the stamp from the first node that detected it.
create table {s}.change (
    name bytea primary key,
    state bytea not null,
    stamp bigint not null,
    until bigint not null
);
create index change_until on {s}.change (until);

-- Counters of attempts: the time at which each counter is full again, in microseconds, and the name of its last
-- write.
create table {s}.counter (
    name bytea primary key,
    full_at bigint not null,
    op bytea not null
) with (autovacuum_vacuum_scale_factor = 0.02);
create index counter_full_at on {s}.counter (full_at);

-- Remembered names.
create table {s}.remembered (
    name bytea primary key,
    until bigint not null
);
create index remembered_until on {s}.remembered (until);
