-- Counters of attempts, and remembered names.

-- Counts an attempt with all of these counters in their order, or with none of them if one refuses. If the caller
-- is remembered, only the first counter counts. If there is a caller who is not remembered, all counters except the
-- first count.
-- Times are in microseconds. The operations are: 0 take, 1 charge, 2 look, 3 give back.
-- The commit waits neither for the disk nor for a standby, because a crash loses less than a second of attempts.
-- All callers name the counters in the same order, which prevents deadlocks.
create function {s}.rg_admit(
    p_known bytea, p_op bytea, p_caller bytea, p_names bytea[], p_hows bigint[], p_everies bigint[], p_depths bigint[],
    out o_status text, out o_wait bigint, out o_place bigint, out o_is_known boolean
) language plpgsql as $$
declare
    known {s}.counter%rowtype;
    right_now bigint;
    since bigint;
    first integer := 1;
    final integer := cardinality(p_names);
    upcoming bigint[] := array_fill(null::bigint, array[cardinality(p_names)]);
begin
    perform {s}.rg_begin(p_known, false);
    perform set_config('synchronous_commit', 'off', true);
    o_status := 'counted';
    o_wait := 0;
    o_is_known := false;
    if p_caller is not null then
        o_is_known := exists (select 1 from {s}.remembered where name = p_caller and until > {s}.rg_now());
        if o_is_known then
            final := 1;
        else
            first := 2;
        end if;
    end if;
    for n in first .. final loop
        o_place := n - first;
        if p_hows[n] = 2 then
            select * into known from {s}.counter where name = p_names[n];
        else
            loop
                select * into known from {s}.counter where name = p_names[n] for update;
                exit when found;
                insert into {s}.counter values (p_names[n], 0, '') on conflict (name) do nothing;
            end loop;
        end if;
        -- This operation has already been counted, and the attempt was allowed.
        continue when known.op = p_op;
        right_now := floor(extract(epoch from clock_timestamp()) * 1000000)::bigint;
        -- If the stored time is later than this maximum, it was written when the clock was ahead.
        known.full_at := least(coalesce(known.full_at, 0), right_now + p_depths[n] + p_everies[n]);
        since := greatest(known.full_at, right_now);
        if p_hows[n] = 0 then
            o_wait := greatest(since + p_everies[n] - right_now - p_depths[n], 0);
            upcoming[n] := since + p_everies[n];
        elsif p_hows[n] = 1 then
            if since - right_now <= p_depths[n] then
                upcoming[n] := since + p_everies[n];
            end if;
        elsif p_hows[n] = 2 then
            o_wait := greatest(known.full_at - p_depths[n] - right_now, 0);
        elsif known.full_at > right_now then
            upcoming[n] := known.full_at - p_everies[n];
        end if;
        if o_wait > 0 then
            return;
        end if;
    end loop;
    for n in first .. final loop
        if upcoming[n] is not null then
            update {s}.counter set full_at = upcoming[n], op = p_op where name = p_names[n];
        end if;
    end loop;
end
$$;

create function {s}.rg_remember(p_known bytea, p_name bytea, p_lifetime bigint, out o_status text)
language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    perform set_config('synchronous_commit', 'off', true);
    insert into {s}.remembered values (p_name, {s}.rg_plus({s}.rg_now(), p_lifetime))
        on conflict (name) do update set until = excluded.until;
    o_status := 'remembered';
end
$$;

create function {s}.rg_remembers(p_known bytea, p_name bytea, out o_status text, out o_is_known boolean)
language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    o_status := 'remembers';
    o_is_known := exists (select 1 from {s}.remembered where name = p_name and until > {s}.rg_now());
end
$$;
