-- Counters of attempts, and names that are remembered.

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
    perform {s}.rg_begin(p_known, false);
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
