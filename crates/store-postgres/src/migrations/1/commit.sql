-- Writes the decisions that the rules of the gates have made, if the store is in the state that they assume. The
-- functions make no decisions themselves.

-- The operation writes everything or nothing. With p_each, each record is a separate operation.
-- An existing record must have a state that begins as in p_states; '' accepts any state, and null means that the
-- record must not exist. p_news contains the new record: 18 bytes of its state, 8 bytes of its end, and the record
-- itself; null means that the record stays unchanged.
-- An entry, with 25 bytes of its effect and 8 bytes of its end, must be as in p_entries, and is replaced as in
-- p_new_entries.
-- p_held are not-befores that must be before p_created.
-- The subject must not have a live session that ends after p_after, except those in p_only. The last relevant
-- session, which is one of p_subject if that is given, must not end later than p_end.
-- Everything that is created from now on gets a time after p_raises.
-- With p_keeps, a replaced record keeps the name and the history of its last write.
create function {s}.rg_commit(
    p_known bytea, p_op bytea, p_each boolean, p_ids uuid[], p_states bytea[], p_news bytea[], p_subjects bytea[],
    p_clients bytea[], p_keeps boolean, p_history bytea, p_keys bytea[], p_targets bytea[], p_entries bytea[],
    p_new_entries bytea[], p_held bytea[], p_created bytea, p_by bigint, p_copy boolean, p_subject bytea, p_only uuid[],
    p_after bigint, p_end bigint, p_raises bigint, p_leeway bigint,
    out o_status text, out o_same boolean[], out o_current boolean[], out o_states bytea[], out o_records bytea[],
    out o_entries bytea[], out o_held bytea[], out o_end bigint
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    entry bytea;
    stamped bigint;
    at_id bigint;
    is_so boolean := true;
    is_written boolean := false;
begin
    perform {s}.rg_begin(p_known, true);
    if p_raises is not null then
        -- Waits until no creation or rotation is in progress and blocks new ones, so that the not-before outlives
        -- everything that it matches.
        perform pg_advisory_xact_lock(hashtext('{s}'), 1);
        select last into strict stamped from {s}.stamp for update;
    elsif p_held is not null then
        perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    end if;
    if p_only is not null then
        perform pg_advisory_xact_lock(hashtext('{s}' || encode(p_subject, 'hex')), 4);
    end if;
    for n in 1 .. cardinality(p_ids) loop
        select * into known from {s}.session where id = p_ids[n] for update;
        if not found and not p_each then
            -- A session that has no row yet needs a separate lock.
            perform pg_advisory_xact_lock(hashtext('{s}' || p_ids[n]), 6);
            select * into known from {s}.session where id = p_ids[n] for update;
        end if;
        if known.op = p_op then
            perform {s}.rg_touch();
            o_status := 'committed';
            return;
        end if;
        o_same[n] := case when p_states[n] is null then known.id is null
            else known.id is not null and substr(known.state, 1, length(p_states[n])) = p_states[n] end;
        is_so := is_so and o_same[n];
        o_states[n] := case when not (p_each and o_same[n]) then known.state end;
        o_records[n] := case when not (p_each and o_same[n]) then known.record end;
        o_current[n] := known.history = substr(p_known, 1, 8);
    end loop;
    for n in 1 .. cardinality(p_keys) loop
        select effect || int8send(until) into entry from {s}.revocation where key = p_keys[n] for update;
        o_entries[n] := entry;
        is_so := is_so and entry is not distinct from p_entries[n];
    end loop;
    is_so := is_so and not exists (
        select 1 from {s}.revocation
        where key = any(p_held) and (get_byte(effect, 0) <> 78 or substr(effect, 2, 8) >= p_created)
    ) and (p_only is null or not exists (
        select 1 from {s}.session
        where subject = p_subject and get_byte(state, 1) = 0 and ends > p_after and id <> all(p_only)
    ));
    if p_end is not null or not is_so and not p_each and p_held is null then
        if p_subject is null then
            select coalesce(max(ends), 0) into o_end from {s}.session;
        else
            select coalesce(max(ends), 0) into o_end from {s}.session where subject = p_subject;
        end if;
        is_so := is_so and (p_end is null or o_end <= p_end);
    end if;

    if p_copy and not exists (select 1 from {s}.head where copying is not null) then
        o_status := 'whole';
        return;
    elsif p_by < {s}.rg_now() then
        o_status := 'late';
        return;
    elsif not is_so and not p_each then
        -- The gate makes decisions based on this reply, so the reply must be as durable as an acknowledged write.
        perform {s}.rg_touch();
        o_held := array(
            select r.effect || int8send(r.until) from unnest(p_held) with ordinality as h (key, n)
                left join {s}.revocation r on r.key = h.key order by h.n
        );
        o_status := 'uncommitted';
        return;
    end if;
    for n in 1 .. cardinality(p_ids) loop
        continue when p_news[n] is null or not o_same[n];
        is_written := true;
        if p_states[n] is null then
            insert into {s}.session values (
                p_ids[n], substr(p_news[n], 1, 18), {s}.rg_number(substr(p_news[n], 19, 8)), p_subjects[n], p_clients[n],
                p_op, coalesce(p_history, substr(p_known, 1, 8)), substr(p_news[n], 27)
            );
        else
            update {s}.session set
                state = substr(p_news[n], 1, 18), ends = {s}.rg_number(substr(p_news[n], 19, 8)),
                subject = coalesce(p_subjects[n], subject), client = coalesce(p_clients[n], client),
                op = case when p_keeps then op else p_op end,
                history = case when p_keeps then history else coalesce(p_history, substr(p_known, 1, 8)) end,
                record = substr(p_news[n], 27)
                where id = p_ids[n];
        end if;
    end loop;
    -- The lock of the log is taken before an id, because readers use the lock to determine whether a missing id may
    -- still appear. The entries of one target get their ids in the order of their commits.
    for n in 1 .. cardinality(p_keys) loop
        continue when p_new_entries[n] is null;
        is_written := true;
        insert into {s}.revocation_log (written, target, effect, until) values (
            {s}.rg_now(), p_targets[n], substr(p_new_entries[n], 1, 25), {s}.rg_number(substr(p_new_entries[n], 26))
        ) returning id into at_id;
        if p_entries[n] is not null then
            update {s}.revocation set
                effect = substr(p_new_entries[n], 1, 25), until = {s}.rg_number(substr(p_new_entries[n], 26)), place = at_id
                where key = p_keys[n];
        else
            insert into {s}.revocation values (
                p_keys[n], p_targets[n], substr(p_new_entries[n], 1, 25), {s}.rg_number(substr(p_new_entries[n], 26)), at_id
            ) on conflict (key) do nothing;
            if not found then
                raise exception 'another writer was first' using errcode = 'serialization_failure';
            end if;
        end if;
    end loop;
    -- A time far in the future must not block every login.
    if p_raises >= stamped and p_raises <= {s}.rg_now() + p_leeway then
        update {s}.stamp set last = p_raises + 1;
        is_written := true;
    end if;
    if not is_written then
        perform {s}.rg_touch();
    end if;
    if not p_each then
        o_states := null;
        o_records := null;
    end if;
    o_status := 'committed';
end
$$;
