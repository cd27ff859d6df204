-- The tables, and a function for each operation. {s} is the schema.
--
-- Only the server's clock counts. Times are milliseconds, capped at the largest bigint. Whatever SQL cannot hold in a
-- bigint without a cap, the numbers of effects, is 8 bytes, big-endian: bytea compares them as they are.
--
-- Locks are taken in one order: the history, not-befores, the subject, the stamp, sessions by id, revocations.

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
    version smallint not null,
    revision bigint not null,
    current bigint not null,
    confirmed boolean not null,
    revoked smallint,
    created bigint not null,
    expires bigint not null,
    access_expires bigint not null,
    issued bigint not null,
    ends bigint not null,
    subject bytea not null,
    client bytea not null,
    op bytea not null,
    history bytea not null,
    gave_way uuid[],
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
    -- The versions of rows that it reads and writes, and what it says of itself.
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

create function {s}.rg_now() returns bigint language sql volatile as $$
    select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

create function {s}.rg_plus(a bigint, b bigint) returns bigint language sql immutable as $$
    select case when a > 9223372036854775807 - b then 9223372036854775807 else a + b end
$$;

create function {s}.rg_number(b bytea) returns bigint language sql immutable as $$
    select case when get_byte(b, 0) >= 128 then 9223372036854775807 else ('x' || encode(b, 'hex'))::bit(64)::bigint end
$$;

-- Effects: kind, then three numbers. M minimum, effective from, before; N moment; G nothing.
create function {s}.rg_merge(a bytea, b bytea) returns bytea language sql immutable strict as $$
    select case
        when get_byte(a, 0) = 71 or get_byte(b, 0) = 71 then '\x47000000000000000000000000000000000000000000000000'::bytea
        when get_byte(a, 0) = 78 and get_byte(b, 0) = 78 then
            '\x4e'::bytea || greatest(substr(a, 2, 8), substr(b, 2, 8)) || '\x00000000000000000000000000000000'::bytea
        when get_byte(a, 0) = 78 then b
        when get_byte(b, 0) = 78 then a
        when greatest(substr(a, 2, 8), substr(b, 2, 8)) = '\xffffffffffffffff'::bytea then
            '\x4dffffffffffffffff00000000000000000000000000000000'::bytea
        else
            '\x4d'::bytea || greatest(substr(a, 2, 8), substr(b, 2, 8))
            || case
                when substr(a, 2, 8) = substr(b, 2, 8) then least(substr(a, 10, 8), substr(b, 10, 8))
                when substr(a, 2, 8) > substr(b, 2, 8) then substr(a, 10, 8)
                else substr(b, 10, 8)
            end
            || greatest(
                substr(a, 18, 8),
                substr(b, 18, 8),
                case
                    when substr(a, 2, 8) = substr(b, 2, 8) then '\x0000000000000000'::bytea
                    else least(substr(a, 2, 8), substr(b, 2, 8))
                end
            )
    end
$$;

-- Begins an operation. Whatever the role or the database says, its commit waits for the disk, and a lock is not waited
-- for for ever. p_known is what the node knows: the history, then how far the server's disk was and its timeline. Is that
-- so? It is until the end of an operation that writes.
create function {s}.rg_begin(p_known bytea, p_writes boolean) returns boolean language plpgsql as $$
begin
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if current_setting('lock_timeout') = '0' then
        perform set_config('lock_timeout', '900ms', true);
    end if;
    if p_writes then
        perform pg_advisory_xact_lock_shared(hashtext('{s}'), 5);
        perform nextval('{s}.writes');
    end if;
    return exists (select 1 from {s}.head where history = substr(p_known, 1, 8))
        and (length(p_known) <= 16 or (
            {s}.rg_written() >= {s}.rg_number(substr(p_known, 9, 8))
            and {s}.rg_timeline() = convert_from(substr(p_known, 17), 'UTF8')
        ));
end
$$;

create function {s}.rg_timeline() returns text language sql volatile as $$
    select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
$$;

-- The system and the timeline of the server.
create function {s}.rg_server() returns text language sql volatile as $$
    select system_identifier || ' ' || {s}.rg_timeline() from pg_control_system()
$$;

-- How far its disk is. That never goes back, unless the server loses what it wrote.
create function {s}.rg_written() returns bigint language sql volatile as $$
    select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint
$$;

-- A repetition writes nothing, so its commit would wait for no standby, and acknowledge what none of them has yet.
create function {s}.rg_touch() returns void language plpgsql as $$
begin
    perform pg_logical_emit_message(true, 'rotogate', '');
end
$$;

-- The moment of the latest not-before among these targets.
create function {s}.rg_moment(p_keys bytea[]) returns bytea language sql stable as $$
    select case when get_byte(effect, 0) = 78 then substr(effect, 2, 8) else '\xffffffffffffffff'::bytea end
    from {s}.revocation where key = any(p_keys) order by 1 desc limit 1
$$;

-- Merges an entry with the one of its target. The lock of the log is held before an id is taken: readers tell by it that
-- an id may yet appear. Entries of one target get their ids in the order of their commits.
create function {s}.rg_absorb(
    p_key bytea, p_target bytea, p_effect bytea, p_until bigint,
    out o_effect bytea, out o_until bigint, out o_changed boolean
) language plpgsql as $$
declare
    known {s}.revocation%rowtype;
    at_id bigint;
begin
    select * into known from {s}.revocation where key = p_key for update;
    if not found then
        o_effect := {s}.rg_merge(p_effect, p_effect);
        o_until := p_until;
        o_changed := true;
        insert into {s}.revocation_log (written, target, effect, until)
            values ({s}.rg_now(), p_target, o_effect, o_until) returning id into at_id;
        insert into {s}.revocation (key, target, effect, until, place)
            values (p_key, p_target, o_effect, o_until, at_id) on conflict (key) do nothing;
        if found then
            return;
        end if;
        -- Another writer was first.
        delete from {s}.revocation_log where id = at_id;
        select * into strict known from {s}.revocation where key = p_key for update;
    end if;
    o_effect := {s}.rg_merge(known.effect, p_effect);
    o_until := greatest(known.until, p_until);
    o_changed := o_effect <> known.effect or o_until <> known.until;
    if o_changed then
        insert into {s}.revocation_log (written, target, effect, until)
            values ({s}.rg_now(), p_target, o_effect, o_until) returning id into at_id;
        update {s}.revocation set effect = o_effect, until = o_until, place = at_id where key = p_key;
    end if;
end
$$;

create function {s}.rg_load(
    p_known bytea, p_id uuid,
    out o_status text, out o_version smallint, out o_revision bigint, out o_confirmed boolean, out o_revoked smallint,
    out o_record bytea, out o_op bytea
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    select 'found', version, revision, confirmed, revoked, record, op
        into o_status, o_version, o_revision, o_confirmed, o_revoked, o_record, o_op
        from {s}.session where id = p_id;
    if not found then
        o_status := 'none';
    end if;
end
$$;

create function {s}.rg_list(p_known bytea, p_subject bytea, p_after uuid, p_limit integer) returns table (
    o_status text, o_id uuid, o_version smallint, o_revision bigint, o_confirmed boolean, o_revoked smallint,
    o_record bytea
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return next;
    elsif p_subject is null then
        return query select 'found', id, version, revision, confirmed, revoked, record
            from {s}.session where p_after is null or id > p_after order by id limit p_limit;
    else
        return query select 'found', id, version, revision, confirmed, revoked, record
            from {s}.session where subject = p_subject and (p_after is null or id > p_after) order by id limit p_limit;
    end if;
end
$$;

create function {s}.rg_insert(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_most bigint, p_idle bigint, p_now bigint, p_refuses boolean,
    p_leeway bigint, p_reason smallint, p_prefix bytea, p_at_once integer,
    out o_status text, out o_moment bytea, out o_ids uuid[], out o_effects bytea[], out o_untils bigint[]
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    live integer;
    over bigint;
    one uuid;
    till bigint;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    if p_most is not null then
        perform pg_advisory_xact_lock(hashtext('{s}' || encode(p_subject, 'hex')), 4);
    end if;
    select * into known from {s}.session where id = p_id;
    if found then
        if known.op <> p_op then
            o_status := 'exists';
            return;
        end if;
        perform {s}.rg_touch();
        o_ids := coalesce(known.gave_way, '{}');
    else
        -- What may have revoked it is swept an hour after it ended.
        if p_created + 3600000 < {s}.rg_now() then
            o_status := 'old';
            return;
        end if;
        o_moment := {s}.rg_moment(p_not_befores || p_client);
        if o_moment is not null and int8send(p_created) <= o_moment then
            o_status := 'late';
            return;
        end if;
        o_ids := '{}';
        if p_most is not null then
            select array_agg(id order by id) into o_ids from (
                select s.id from {s}.session s
                where s.subject = p_subject and s.version = 1 and s.revoked is null
                    and s.expires > p_now and {s}.rg_plus(s.issued, p_idle) > p_now
                    and not coalesce(int8send(s.created) <= {s}.rg_moment(p_not_befores || s.client), false)
                order by s.id for update
            ) as held;
            o_ids := coalesce(o_ids, '{}');
            live := cardinality(o_ids);
            over := greatest(live + 1 - p_most, 0);
            if over > 0 and p_refuses then
                o_status := 'many';
                return;
            end if;
            o_ids := o_ids[1 : least(over, p_at_once, live)::integer];
            foreach one in array o_ids loop
                update {s}.session set revoked = p_reason, revision = revision + 1, ends = access_expires
                    where id = one returning access_expires into till;
                perform {s}.rg_absorb(p_prefix || uuid_send(one), p_prefix || uuid_send(one),
                    '\x4dffffffffffffffff00000000000000000000000000000000'::bytea, {s}.rg_plus(till, p_leeway));
            end loop;
        end if;
        insert into {s}.session values (
            p_id, 1, p_revision, p_current, p_confirmed, p_revoked, p_created, p_expires, p_access_expires, p_issued,
            p_ends, p_subject, p_client, p_op, substr(p_known, 1, 8), nullif(o_ids, '{}'), p_record
        ) on conflict (id) do nothing;
        if not found then
            -- Another sent the same a moment before, or another session has the id.
            select * into strict known from {s}.session where id = p_id;
            if known.op <> p_op then
                raise exception 'there is a session with that id' using errcode = 'unique_violation';
            end if;
        end if;
    end if;
    o_status := 'inserted';
    select array_agg(r.effect order by e.n), array_agg(r.until order by e.n) into o_effects, o_untils
        from unnest(o_ids) with ordinality as e (id, n) left join {s}.revocation r on r.key = p_prefix || uuid_send(e.id);
end
$$;

create function {s}.rg_swap(
    p_known bytea, p_op bytea, p_id uuid, p_expected bigint, p_revision bigint, p_current bigint, p_confirmed boolean,
    p_revoked smallint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_key bytea, p_target bytea, p_effect bytea, p_until bigint,
    out o_status text, out o_version smallint, out o_revision bigint, out o_confirmed boolean, out o_revoked smallint,
    out o_record bytea, out o_logged boolean
) language plpgsql as $$
declare
    known {s}.session%rowtype;
begin
    o_logged := false;
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    select * into known from {s}.session where id = p_id for update;
    if not found then
        o_status := 'none';
        return;
    end if;
    o_version := known.version;
    if known.version <> 1 then
        o_status := 'version';
        return;
    end if;
    if known.op = p_op then
        perform {s}.rg_touch();
        o_status := 'swapped';
        return;
    end if;
    if known.revoked is not null or known.revision <> p_expected then
        o_status := 'changed';
        o_revision := known.revision;
        o_confirmed := known.confirmed;
        o_revoked := known.revoked;
        o_record := known.record;
        return;
    end if;
    if known.subject <> p_subject or known.client <> p_client then
        o_status := 'moved';
        return;
    end if;
    if coalesce(int8send(known.created) <= {s}.rg_moment(p_not_befores || known.client), false) then
        o_status := 'late';
        return;
    end if;
    update {s}.session set
        revision = p_revision, current = p_current, confirmed = p_confirmed, revoked = p_revoked, expires = p_expires,
        access_expires = p_access_expires, issued = p_issued, ends = p_ends, op = p_op, history = substr(p_known, 1, 8),
        gave_way = null, record = p_record
        where id = p_id;
    if p_key is not null then
        select a.o_changed into o_logged from {s}.rg_absorb(p_key, p_target, p_effect, p_until) a;
    end if;
    o_status := 'swapped';
end
$$;

create function {s}.rg_revoke(
    p_known bytea, p_key bytea, p_target bytea, p_effect bytea, p_until bigint, p_leeway bigint, p_reach text,
    p_id uuid, p_subject bytea, p_reason smallint, p_ends_it boolean,
    out o_status text, out o_effect bytea, out o_until bigint, out o_changed boolean, out o_version smallint
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    reach bigint := 0;
    is_moment boolean := get_byte(p_effect, 0) = 78;
    stamped bigint;
    moment bigint;
    right_now bigint;
begin
    o_changed := false;
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'merged';
    if is_moment then
        -- Nothing begins or goes on beside it, so that it outlives all that it matches.
        perform pg_advisory_xact_lock(hashtext('{s}'), 1);
        select last into strict stamped from {s}.stamp for update;
    end if;
    if p_reach = 'session' then
        select * into known from {s}.session where id = p_id for update;
        if not found then
            -- It may be written back this moment.
            perform pg_advisory_xact_lock(hashtext('{s}' || p_id), 6);
            select * into known from {s}.session where id = p_id for update;
        end if;
        if found and known.version <> 1 then
            -- It cannot be marked. Its entry outlives it instead.
            o_version := known.version;
            reach := coalesce((select max(ends) from {s}.session), 0);
        elsif found then
            reach := known.access_expires;
            if p_ends_it and known.revoked is not null
                and not exists (select 1 from {s}.revocation where key = p_key) then
                -- Its entry was written with its end. If the entry is gone, so is everything that it could match.
                perform {s}.rg_touch();
                o_effect := p_effect;
                o_until := p_until;
                return;
            end if;
            if p_ends_it and known.revoked is null then
                update {s}.session set revoked = p_reason, revision = revision + 1, ends = access_expires where id = p_id;
            end if;
        end if;
    elsif p_reach = 'subject' then
        reach := coalesce((select max(ends) from {s}.session where subject = p_subject), 0);
    elsif p_reach = 'all' then
        reach := coalesce((select max(ends) from {s}.session), 0);
    end if;
    select a.o_effect, a.o_until, a.o_changed into o_effect, o_until, o_changed
        from {s}.rg_absorb(p_key, p_target, p_effect, greatest(p_until, {s}.rg_plus(reach, p_leeway))) a;
    if is_moment and get_byte(o_effect, 0) = 78 then
        moment := {s}.rg_number(substr(o_effect, 2, 8));
        right_now := {s}.rg_now();
        -- What begins from now on begins after it. A moment far ahead must not stop every login.
        if moment >= stamped and moment <= right_now + p_leeway then
            update {s}.stamp set last = moment + 1;
        end if;
    end if;
    if not o_changed then
        perform {s}.rg_touch();
    end if;
end
$$;

create function {s}.rg_stamp(
    p_known bytea, p_creation boolean, p_after bigint, p_leeway bigint, out o_status text, out o_stamp bigint
) language plpgsql as $$
declare
    stamped bigint;
    right_now bigint;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    select last into strict stamped from {s}.stamp for update;
    right_now := {s}.rg_now();
    o_stamp := greatest(right_now, stamped);
    if not p_creation then
        -- Nothing that begins later shares its millisecond.
        update {s}.stamp set last = o_stamp + 1;
    else
        if p_after is not null then
            o_stamp := greatest(o_stamp, {s}.rg_plus(p_after, 1));
        end if;
        if o_stamp > right_now + p_leeway then
            o_status := 'ahead';
            return;
        end if;
        update {s}.stamp set last = o_stamp;
    end if;
    o_status := 'stamp';
end
$$;

create function {s}.rg_confirm(
    p_known bytea, p_ids uuid[], p_generations bigint[], out o_status text, out o_unreadable uuid[]
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    -- In the order in which everything locks them.
    perform 1 from {s}.session where id = any(p_ids) order by id for update;
    update {s}.session s set confirmed = true, revision = s.revision + 1
        from unnest(p_ids, p_generations) as seen (id, generation)
        where s.id = seen.id and s.version = 1 and s.revoked is null and not s.confirmed and s.current = seen.generation;
    select coalesce(array_agg(id), '{}') into o_unreadable from {s}.session where id = any(p_ids) and version <> 1;
    o_status := 'confirmed';
end
$$;

-- The live revocations by key, a page at a time.
create function {s}.rg_live(p_known bytea, p_after bytea, p_limit integer) returns table (
    o_status text, o_key bytea, o_target bytea, o_effect bytea, o_until bigint, o_place bigint
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return next;
    else
        return query select 'live', key, target, effect, until, place
            from {s}.revocation where p_after is null or key > p_after order by key limit p_limit;
    end if;
end
$$;

-- The transactions that may yet add to the log.
create function {s}.rg_writers() returns text[] language sql volatile as $$
    select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks
    where locktype = 'relation' and relation = '{s}.revocation_log'::regclass and mode = 'RowExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database())
$$;

-- The log after an id, and those of the missing ids below it that have appeared. Ids become visible out of order: the
-- writers before reading are those that a missing id may still be waited for from, those after reading are those that a
-- newly missing one may come from. A node that beats writes its row first: a primary that was cut off from its
-- synchronous standbys answers no beat.
create function {s}.rg_read(
    p_known bytea, p_node bytea, p_said bytea, p_after bigint, p_missing bigint[], p_limit integer,
    out o_status text, out o_now bigint, out o_floor bigint, out o_last bigint, out o_server text, out o_written bigint,
    out o_before text[], out o_behind text[], out o_ids bigint[], out o_targets bytea[], out o_effects bytea[],
    out o_untils bigint[]
) language plpgsql as $$
declare
    added integer;
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    if p_node is not null then
        insert into {s}.node (id, beat, said) values (p_node, {s}.rg_now(), p_said)
            on conflict (id) do update set beat = excluded.beat, said = excluded.said;
        o_server := {s}.rg_server();
        o_written := {s}.rg_written();
    end if;
    select case when is_called then last_value else 0 end into o_last from {s}.log_id;
    o_before := case when cardinality(p_missing) > 0 then {s}.rg_writers() else '{}' end;
    select floor into strict o_floor from {s}.head;
    select coalesce(array_agg(id), '{}'), array_agg(target), array_agg(effect), array_agg(until)
        into o_ids, o_targets, o_effects, o_untils
        from (
            select * from (
                select id, target, effect, until from {s}.revocation_log where id = any(p_missing)
                union all
                (select id, target, effect, until from {s}.revocation_log where id > p_after order by id limit p_limit)
            ) as found order by id
        ) as page;
    -- Looking at the locks of the whole server is dear, and rarely needed.
    added := (select count(*) from unnest(o_ids) as id where id > p_after);
    o_behind := '{}';
    if cardinality(p_missing) > 0 or (select greatest(o_last, max(id)) from unnest(o_ids) as id) - p_after > added then
        o_behind := {s}.rg_writers();
    end if;
    o_now := {s}.rg_now();
    o_status := 'read';
end
$$;

-- Where the log ends, and which ids below its end may yet appear, among the last ones.
create function {s}.rg_end(
    p_known bytea, p_missing integer, out o_status text, out o_floor bigint, out o_last bigint, out o_missing bigint[]
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    select case when is_called then last_value else 0 end into o_last from {s}.log_id;
    select floor into strict o_floor from {s}.head;
    o_missing := '{}';
    if cardinality({s}.rg_writers()) > 0 then
        select coalesce(array_agg(n), '{}') into o_missing
            from generate_series(greatest(o_floor, o_last - p_missing) + 1, o_last) as n
            where not exists (select 1 from {s}.revocation_log where id = n);
    end if;
    o_status := 'end';
end
$$;

create function {s}.rg_sweep(
    p_known bytea, p_limit integer, out o_status text, out o_sessions bigint, out o_revocations bigint,
    out o_more boolean, out o_writes bigint
) language plpgsql as $$
declare
    right_now bigint := {s}.rg_now();
    ended bigint := right_now - 3600000;
    logged bigint;
    top bigint;
    counted bigint;
    remembered bigint;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'swept';
    o_sessions := 0;
    o_revocations := 0;
    o_more := false;
    select last_value into o_writes from {s}.writes;
    -- The number goes into a mark: a crash must not bring it back below that.
    perform {s}.rg_touch();
    -- One node at a time.
    if not pg_try_advisory_xact_lock(hashtext('{s}'), 3) then
        return;
    end if;
    delete from {s}.session where id in (
        select id from {s}.session where ends < ended order by ends limit p_limit for update skip locked
    );
    get diagnostics o_sessions = row_count;
    delete from {s}.revocation where key in (
        select key from {s}.revocation where until < ended order by until limit p_limit for update skip locked
    );
    get diagnostics o_revocations = row_count;
    with gone as (
        delete from {s}.revocation_log where id in (
            select id from {s}.revocation_log where written < ended + 2700000 order by id limit p_limit * 8
        ) returning id
    )
    select count(*), max(id) into logged, top from gone;
    if logged > 0 then
        update {s}.head set floor = greatest(floor, top);
    end if;
    delete from {s}.counter where name in (
        select name from {s}.counter where full_at < right_now * 1000 order by full_at limit p_limit * 8
            for update skip locked
    );
    get diagnostics counted = row_count;
    delete from {s}.remembered where name in (
        select name from {s}.remembered r where r.until < right_now order by r.until limit p_limit * 8
            for update skip locked
    );
    get diagnostics remembered = row_count;
    delete from {s}.change c where c.until < right_now;
    delete from {s}.node where beat < ended;
    o_more := o_sessions >= p_limit or o_revocations >= p_limit
        or greatest(logged, counted, remembered) >= p_limit * 8;
end
$$;

create function {s}.rg_check(
    p_known bytea, out o_status text, out o_now bigint, out o_server text, out o_written bigint, out o_writes bigint
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    update {s}.stamp set last = last;
    select last_value into o_writes from {s}.writes;
    o_now := {s}.rg_now();
    o_server := {s}.rg_server();
    o_written := {s}.rg_written();
    o_status := 'ready';
end
$$;

-- Everything that was readable before is where an acknowledged write is. What a standby lacks is readable only if the wait
-- for it was cancelled: this commit waits for that standby anew.
create function {s}.rg_settle(p_known bytea, out o_status text) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    if current_setting('synchronous_standby_names') <> '' then
        perform {s}.rg_touch();
    end if;
    o_status := 'settled';
end
$$;

create function {s}.rg_time(p_known bytea, out o_status text, out o_now bigint) language plpgsql as $$
begin
    o_status := case when {s}.rg_begin(p_known, false) then 'time' else 'history' end;
    o_now := {s}.rg_now();
end
$$;

-- Gives the data a new history, unless another node has. Every write under the earlier one is done or fails by then.
create function {s}.rg_adopt(
    p_known bytea, p_new bytea, p_store bytea,
    out o_status text, out o_history bytea, out o_server text, out o_written bigint, out o_writes bigint
) language plpgsql as $$
declare
    known {s}.head%rowtype;
begin
    perform {s}.rg_begin(p_known, false);
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    select * into known from {s}.head for update;
    if not found then
        o_status := 'headless';
        return;
    end if;
    if known.store <> p_store then
        o_status := 'differs';
        return;
    end if;
    o_status := 'adopted';
    o_history := known.history;
    if known.history = substr(p_known, 1, 8) then
        o_history := p_new;
        update {s}.head set history = p_new, adopted = {s}.rg_now();
    else
        perform {s}.rg_touch();
    end if;
    select last_value into o_writes from {s}.writes;
    o_server := {s}.rg_server();
    o_written := {s}.rg_written();
end
$$;

-- Writes a record back that was lost.
create function {s}.rg_restore(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_key bytea,
    out o_status text, out o_version smallint
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    is_known boolean;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    -- A session without a row has no other lock.
    perform pg_advisory_xact_lock(hashtext('{s}' || p_id), 6);
    select * into known from {s}.session where id = p_id for update;
    is_known := found;
    if is_known and known.version <> 1 then
        o_version := known.version;
        o_status := 'version';
        return;
    end if;
    o_status := 'had';
    -- Written since the loss, or not lost.
    if p_revoked is not null or is_known and (
        known.revoked is not null or known.history = substr(p_known, 1, 8) or known.current > p_current
        or known.revision >= p_revision
    ) then
        perform {s}.rg_touch();
        return;
    end if;
    if is_known and (known.subject <> p_subject or known.client <> p_client) then
        o_status := 'moved';
        return;
    end if;
    if p_ends + 3600000 < {s}.rg_now()
        or exists (
            select 1 from {s}.revocation
            where key = p_key and (get_byte(effect, 0) <> 77 or substr(effect, 2, 8) = '\xffffffffffffffff'::bytea)
        )
        or coalesce(int8send(p_created) <= {s}.rg_moment(p_not_befores || p_client), false) then
        return;
    end if;
    if is_known then
        update {s}.session set
            revision = p_revision, current = p_current, confirmed = p_confirmed, expires = p_expires,
            access_expires = p_access_expires, issued = p_issued, ends = p_ends, op = p_op,
            history = substr(p_known, 1, 8), gave_way = null, record = p_record
            where id = p_id;
    else
        insert into {s}.session values (
            p_id, 1, p_revision, p_current, p_confirmed, null, p_created, p_expires, p_access_expires, p_issued, p_ends,
            p_subject, p_client, p_op, substr(p_known, 1, 8), null, p_record
        );
    end if;
    o_status := 'restored';
end
$$;

-- That a node has written back what it knew, and whether all have.
create function {s}.rg_restoration(
    p_known bytea, p_node bytea, p_said bytea, p_patience bigint,
    out o_status text, out o_adopted bigint, out o_complete boolean
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'restoration';
    select adopted into strict o_adopted from {s}.head;
    if o_adopted = 0 then
        o_complete := true;
        return;
    end if;
    insert into {s}.node values (p_node, {s}.rg_now(), p_said, substr(p_known, 1, 8))
        on conflict (id) do update set restored = excluded.restored
        where node.restored is distinct from excluded.restored;
    o_complete := {s}.rg_now() >= {s}.rg_plus(o_adopted, p_patience) or not exists (
        select 1 from {s}.node
        where id <> p_node and {s}.rg_plus(beat, p_patience) >= o_adopted
            and restored is distinct from substr(p_known, 1, 8)
    );
end
$$;

create function {s}.rg_predates(p_known bytea, p_id uuid, out o_status text, out o_predates boolean)
language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    o_status := 'predates';
    o_predates := (select adopted from {s}.head) > 0
        and exists (select 1 from {s}.session where id = p_id and history <> substr(p_known, 1, 8));
end
$$;

-- The moment of a change that every node finds by itself. The first to ask gets a stamp as for a not-before; who finds the
-- same change later gets the same.
create function {s}.rg_change(
    p_known bytea, p_name bytea, p_state bytea, p_kept bigint, out o_status text, out o_stamp bigint
) language plpgsql as $$
declare
    known {s}.change%rowtype;
    right_now bigint;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'stamp';
    -- One node at a time.
    select last into strict o_stamp from {s}.stamp for update;
    right_now := {s}.rg_now();
    select * into known from {s}.change where name = p_name;
    if found and known.state = p_state and known.until > right_now then
        o_stamp := known.stamp;
        perform {s}.rg_touch();
        return;
    end if;
    o_stamp := greatest(right_now, o_stamp);
    update {s}.stamp set last = o_stamp + 1;
    insert into {s}.change as c (name, state, stamp, until)
        values (p_name, p_state, o_stamp, {s}.rg_plus(right_now, p_kept))
        on conflict (name) do update set state = excluded.state, stamp = excluded.stamp, until = excluded.until;
end
$$;

-- Counts an attempt. Times are in microseconds. Whoever guesses waits for no disk and no standby: what a crash forgets is
-- less than a second of attempts.
create function {s}.rg_count(
    p_known bytea, p_op bytea, p_name bytea, p_how text, p_every bigint, p_depth bigint,
    out o_status text, out o_wait bigint
) language plpgsql as $$
declare
    known {s}.counter%rowtype;
    right_now bigint;
    since bigint;
    upcoming bigint;
begin
    o_wait := 0;
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    perform set_config('synchronous_commit', 'off', true);
    o_status := 'counted';
    if p_how = 'look' then
        select * into known from {s}.counter where name = p_name;
        right_now := floor(extract(epoch from clock_timestamp()) * 1000000)::bigint;
        o_wait := greatest(coalesce(known.full_at, 0) - p_depth - right_now, 0);
        return;
    end if;
    loop
        select * into known from {s}.counter where name = p_name for update;
        exit when found;
        insert into {s}.counter values (p_name, 0, '') on conflict (name) do nothing;
    end loop;
    -- It was done before. Its answer was that it may.
    if known.op = p_op then
        return;
    end if;
    right_now := floor(extract(epoch from clock_timestamp()) * 1000000)::bigint;
    since := greatest(known.full_at, right_now);
    if p_how = 'take' then
        o_wait := greatest(since + p_every - right_now - p_depth, 0);
        if o_wait = 0 then
            upcoming := since + p_every;
        end if;
    elsif p_how = 'charge' then
        if since - right_now <= p_depth then
            upcoming := since + p_every;
        end if;
    elsif known.full_at > right_now then
        upcoming := known.full_at - p_every;
    end if;
    if upcoming is not null then
        update {s}.counter set full_at = upcoming, op = p_op where name = p_name;
    end if;
end
$$;

create function {s}.rg_remember(p_known bytea, p_name bytea, p_lifetime bigint, out o_status text)
language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    perform set_config('synchronous_commit', 'off', true);
    insert into {s}.remembered values (p_name, {s}.rg_plus({s}.rg_now(), p_lifetime))
        on conflict (name) do update set until = excluded.until;
    o_status := 'remembered';
end
$$;

create function {s}.rg_remembers(p_known bytea, p_name bytea, out o_status text, out o_is_known boolean)
language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    o_status := 'remembers';
    o_is_known := exists (select 1 from {s}.remembered where name = p_name and until > {s}.rg_now());
end
$$;

-- The nodes that were heard of lately. What promotes a key must not rest on a server that was cut off: it writes.
create function {s}.rg_nodes(p_known bytea, p_within bigint) returns table (o_status text, o_beat bigint, o_said bytea)
language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return next;
    else
        perform {s}.rg_touch();
        return query select 'node', beat, said from {s}.node where beat >= {s}.rg_now() - p_within order by id;
    end if;
end
$$;

-- Puts a record of another store, and replaces what is there.
create function {s}.rg_put(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, out o_status text
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    delete from {s}.session where id = p_id;
    insert into {s}.session values (
        p_id, 1, p_revision, p_current, p_confirmed, p_revoked, p_created, p_expires, p_access_expires, p_issued, p_ends,
        p_subject, p_client, p_op, substr(p_known, 1, 8), null, p_record
    );
    o_status := 'put';
end
$$;

-- A copy is whole.
create function {s}.rg_end_copy(p_known bytea, out o_status text) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    update {s}.head set copying = null;
    o_status := 'whole';
end
$$;

create function {s}.rg_relay_load(
    p_known bytea, p_id bytea, out o_status text, out o_version smallint, out o_record bytea
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, false) then
        o_status := 'history';
        return;
    end if;
    select 'found', version, record into o_status, o_version, o_record from {s}.relay where id = p_id;
    if not found then
        o_status := 'none';
    end if;
end
$$;

create function {s}.rg_relay_insert(
    p_known bytea, p_op bytea, p_id bytea, p_mark bytea, p_until bigint, p_record bytea, p_now bigint,
    out o_status text, out o_version smallint, out o_record bytea
) language plpgsql as $$
declare
    known {s}.relay%rowtype;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'inserted';
    insert into {s}.relay values (p_id, 1, p_op, p_mark, p_until, p_record) on conflict (id) do nothing;
    if found then
        return;
    end if;
    select * into known from {s}.relay where id = p_id for update;
    if not found then
        -- It was removed this moment. The caller sends it again.
        raise exception 'the record is gone' using errcode = 'serialization_failure';
    end if;
    o_version := known.version;
    if known.version <> 1 then
        o_status := 'version';
    elsif known.op = p_op then
        perform {s}.rg_touch();
    elsif known.until > p_now then
        o_status := 'present';
        o_record := known.record;
    else
        update {s}.relay set op = p_op, mark = p_mark, until = p_until, record = p_record where id = p_id;
    end if;
end
$$;

create function {s}.rg_relay_swap(
    p_known bytea, p_op bytea, p_id bytea, p_expected bytea, p_mark bytea, p_until bigint, p_record bytea,
    out o_status text, out o_version smallint, out o_record bytea
) language plpgsql as $$
declare
    known {s}.relay%rowtype;
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    select * into known from {s}.relay where id = p_id for update;
    if not found then
        o_status := 'none';
        return;
    end if;
    o_version := known.version;
    if known.version <> 1 then
        o_status := 'version';
    elsif known.op = p_op then
        perform {s}.rg_touch();
        o_status := 'swapped';
    elsif known.mark <> p_expected then
        o_status := 'changed';
        o_record := known.record;
    else
        update {s}.relay set op = p_op, mark = p_mark, until = p_until, record = p_record where id = p_id;
        o_status := 'swapped';
    end if;
end
$$;

create function {s}.rg_relay_remove(
    p_known bytea, p_id bytea, p_expected bytea, out o_status text, out o_version smallint, out o_removed boolean
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'removed';
    delete from {s}.relay where id = p_id and version = 1 and (p_expected is null or mark = p_expected);
    o_removed := found;
    if not o_removed then
        select version into o_version from {s}.relay where id = p_id and version <> 1;
        if found then
            o_status := 'version';
        end if;
    end if;
end
$$;

create function {s}.rg_relay_sweep(
    p_known bytea, p_now bigint, p_limit integer, out o_status text, out o_removed bigint
) language plpgsql as $$
begin
    if not {s}.rg_begin(p_known, true) then
        o_status := 'history';
        return;
    end if;
    o_status := 'swept';
    delete from {s}.relay where id in (
        select id from {s}.relay where until <= p_now order by until limit p_limit for update skip locked
    );
    get diagnostics o_removed = row_count;
end
$$;
