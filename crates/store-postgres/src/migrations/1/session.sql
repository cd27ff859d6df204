-- Functions that read sessions.

-- Returns a session, and the revocation entry for it.
create function {s}.rg_load(
    p_known bytea, p_id uuid, p_key bytea,
    out o_status text, out o_state bytea, out o_record bytea, out o_op bytea, out o_entry bytea
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    select 'found', state, record, op, (select effect || int8send(until) from {s}.revocation where key = p_key)
        into o_status, o_state, o_record, o_op, o_entry
        from {s}.session where id = p_id;
    if not found then
        o_status := 'none';
    end if;
end
$$;

create function {s}.rg_load_all(p_known bytea, p_ids uuid[])
returns table (o_status text, o_id uuid, o_state bytea, o_record bytea) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    return query select 'found', id, state, record from {s}.session where id = any(p_ids);
end
$$;

create function {s}.rg_list(p_known bytea, p_subject bytea, p_after uuid, p_limit integer)
returns table (o_status text, o_id uuid, o_state bytea, o_record bytea) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    if p_subject is null then
        return query select 'found', id, state, record
            from {s}.session where p_after is null or id > p_after order by id limit p_limit;
    else
        return query select 'found', id, state, record
            from {s}.session where subject = p_subject and (p_after is null or id > p_after) order by id limit p_limit;
    end if;
end
$$;

-- Returns the live sessions of a subject that end after a given time, and the entries for the given keys, for these
-- sessions and for their clients.
create function {s}.rg_room(
    p_known bytea, p_subject bytea, p_after bigint, p_limit integer, p_prefix bytea, p_keys bytea[],
    out o_status text, out o_ids uuid[], out o_states bytea[], out o_records bytea[], out o_targets bytea[],
    out o_entries bytea[]
) language plpgsql as $$
declare
    keys bytea[];
begin
    perform {s}.rg_begin(p_known, false);
    o_status := 'room';
    select array_agg(id), array_agg(state), array_agg(record),
            p_keys || array_agg(distinct client) || array_agg(p_prefix || uuid_send(id))
        into o_ids, o_states, o_records, keys
        from (
            select * from {s}.session where subject = p_subject and get_byte(state, 1) = 0 and ends > p_after
            order by id limit p_limit
        ) as live;
    select array_agg(target), array_agg(effect || int8send(until)) into o_targets, o_entries
        from {s}.revocation where key = any(keys);
end
$$;
