-- The common first steps of every operation, and information about the server. All times come from the server's
-- clock.
--
-- Locks are always taken in this order: the history, not-befores, the subject, the stamp, sessions by id,
-- revocations.

create function {s}.rg_now() returns bigint language sql volatile as $$
    select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

create function {s}.rg_plus(a bigint, b bigint) returns bigint language sql immutable as $$
    select case when a > 9223372036854775807 - b then 9223372036854775807 else a + b end
$$;

create function {s}.rg_number(b bytea) returns bigint language sql immutable as $$
    select case when get_byte(b, 0) >= 128 then 9223372036854775807 else ('x' || encode(b, 'hex'))::bit(64)::bigint end
$$;

create function {s}.rg_timeline() returns text language sql volatile as $$
    select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
$$;

-- Returns the identifier of the database system and the timeline of the server.
create function {s}.rg_server() returns text language sql volatile as $$
    select system_identifier || ' ' || {s}.rg_timeline() from pg_control_system()
$$;

-- Returns the log position up to which the server has written to its disk. It never goes back, unless the server
-- loses writes.
create function {s}.rg_written() returns bigint language sql volatile as $$
    select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint
$$;

-- Makes settings for the current transaction, whatever the settings of the role or the database: its commit waits
-- for the disk, and it waits for a lock only for a limited time.
create function {s}.rg_settings() returns void language plpgsql as $$
begin
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if current_setting('lock_timeout') = '0' then
        perform set_config('lock_timeout', '900ms', true);
    end if;
end
$$;

-- Begins an operation. p_known is the state that the node knows: the history, and the position and timeline of the
-- server. If the server does not have this state, the operation fails before it does anything. The state remains
-- valid until the end of an operation that writes.
create function {s}.rg_begin(p_known bytea, p_writes boolean) returns void language plpgsql as $$
begin
    perform {s}.rg_settings();
    if p_writes then
        perform pg_advisory_xact_lock_shared(hashtext('{s}'), 5);
        perform nextval('{s}.writes');
    end if;
    if not exists (select 1 from {s}.head where history = substr(p_known, 1, 8))
        or length(p_known) > 16 and (
            {s}.rg_written() < {s}.rg_number(substr(p_known, 9, 8))
            or {s}.rg_timeline() <> convert_from(substr(p_known, 17), 'UTF8')
        )
    then
        raise exception 'the store has another history' using errcode = 'RG001';
    end if;
end
$$;

-- Makes a write. Without it, the commit of a repeated operation would not wait for a standby, and could acknowledge
-- a write that no standby has yet.
create function {s}.rg_touch() returns void language plpgsql as $$
begin
    perform pg_logical_emit_message(true, 'rotogate', '');
end
$$;

create function {s}.rg_check(
    p_known bytea, out o_status text, out o_now bigint, out o_server text, out o_written bigint, out o_writes bigint
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    update {s}.stamp set last = last;
    select last_value into o_writes from {s}.writes;
    o_now := {s}.rg_now();
    o_server := {s}.rg_server();
    o_written := {s}.rg_written();
    o_status := 'ready';
end
$$;

-- Makes all data that could be read before as durable as an acknowledged write. Data that a standby lacks can be
-- read only if somebody cancelled the wait for that standby. This commit waits for the standby again.
create function {s}.rg_settle(p_known bytea, out o_status text) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    if current_setting('synchronous_standby_names') <> '' then
        perform {s}.rg_touch();
    end if;
    o_status := 'settled';
end
$$;

create function {s}.rg_time(p_known bytea, out o_status text, out o_now bigint) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    o_status := 'time';
    o_now := {s}.rg_now();
end
$$;
