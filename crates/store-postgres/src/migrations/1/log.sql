-- The data that readers follow: the live revocations, and the log.

-- Returns the live revocations by key, one page at a time.
create function {s}.rg_live(p_known bytea, p_after bytea, p_limit integer) returns table (
    o_status text, o_key bytea, o_target bytea, o_effect bytea, o_until bigint, o_place bigint
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    return query select 'live', key, target, effect, until, place
        from {s}.revocation where p_after is null or key > p_after order by key limit p_limit;
end
$$;

-- Returns the transactions that may still add entries to the log.
create function {s}.rg_writers() returns text[] language sql volatile as $$
    select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks
    where locktype = 'relation' and relation = '{s}.revocation_log'::regclass and mode = 'RowExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database())
$$;

-- Returns the entries of the log after an id, and those missing ids below it that have appeared. Ids become visible
-- out of order. The writers before the reading may still write an id that is already known to be missing. The
-- writers after the reading may still write an id that is newly missing. If the call is a beat, it first writes the
-- row of the node, so a primary that is cut off from its synchronous standbys cannot confirm a beat.
create function {s}.rg_read(
    p_known bytea, p_node bytea, p_said bytea, p_after bigint, p_missing bigint[], p_limit integer,
    out o_status text, out o_now bigint, out o_floor bigint, out o_last bigint, out o_server text, out o_written bigint,
    out o_before text[], out o_behind text[], out o_ids bigint[], out o_targets bytea[], out o_effects bytea[],
    out o_untils bigint[]
) language plpgsql as $$
declare
    added integer;
begin
    perform {s}.rg_begin(p_known, false);
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
    -- Reading the locks of the whole server is expensive and rarely needed.
    added := (select count(*) from unnest(o_ids) as id where id > p_after);
    o_behind := '{}';
    if cardinality(p_missing) > 0 or (select greatest(o_last, max(id)) from unnest(o_ids) as id) - p_after > added then
        o_behind := {s}.rg_writers();
    end if;
    o_now := {s}.rg_now();
    o_status := 'read';
end
$$;

-- Returns the end of the log, and the most recent ids below its end that may still appear.
create function {s}.rg_end(
    p_known bytea, p_missing integer, out o_status text, out o_floor bigint, out o_last bigint, out o_missing bigint[]
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
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
