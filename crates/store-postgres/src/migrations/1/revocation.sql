-- Revocations, and the moments that order them with what begins.

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
    perform {s}.rg_begin(p_known, true);
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
    perform {s}.rg_begin(p_known, true);
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

-- The moment of a change that every node finds by itself. The first to ask gets a stamp as for a not-before; who finds the
-- same change later gets the same.
create function {s}.rg_change(
    p_known bytea, p_name bytea, p_state bytea, p_kept bigint, out o_status text, out o_stamp bigint
) language plpgsql as $$
declare
    known {s}.change%rowtype;
    right_now bigint;
begin
    perform {s}.rg_begin(p_known, true);
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
