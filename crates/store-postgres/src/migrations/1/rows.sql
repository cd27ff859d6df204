-- The rows of the parts.

create function {s}.rg_row_share(p_key bytea) returns smallint language sql immutable as $$
    select (get_byte(p_key, length(p_key) - 1) % 64)::smallint
$$;

create function {s}.rg_row_load(
    p_known bytea, p_space integer, p_key bytea,
    out o_status text, out o_format smallint, out o_row_version bytea, out o_until bigint, out o_bytes bytea
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    select 'found', format, version, until, bytes into o_status, o_format, o_row_version, o_until, o_bytes
        from {s}.part_row where space = p_space and key = p_key;
    if not found then
        o_status := 'none';
    end if;
end
$$;

create function {s}.rg_row_insert(
    p_known bytea, p_space integer, p_key bytea, p_version bytea, p_until bigint, p_bytes bytea, p_now bigint,
    p_most bigint,
    out o_status text, out o_format smallint, out o_row_version bytea, out o_until bigint, out o_bytes bytea
) language plpgsql as $$
declare
    known {s}.part_row%rowtype;
    is_full boolean := false;
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'inserted';
    insert into {s}.part_row values (p_space, p_key, 1, p_version, p_until, p_bytes) on conflict (space, key) do nothing;
    if found then
        -- Most inserts look at one counter. All are read without locks, so a few rows more may come in at once.
        select rows >= p_most / 64 into is_full from {s}.part_row_count
            where space = p_space and share = {s}.rg_row_share(p_key);
        if is_full then
            select sum(rows) >= p_most into is_full from {s}.part_row_count where space = p_space;
        end if;
        if is_full then
            delete from {s}.part_row where space = p_space and key = p_key;
            -- The caller inserts again, because this transaction may have locked several counters.
            o_status := case when {s}.rg_row_take_ended(p_space, p_now, 1000) > 0 then 'swept' else 'full' end;
            return;
        end if;
        insert into {s}.part_row_count as c values (p_space, {s}.rg_row_share(p_key), 1)
            on conflict (space, share) do update set rows = c.rows + 1;
        return;
    end if;
    select * into known from {s}.part_row where space = p_space and key = p_key for update;
    if not found then
        -- The row was removed at this very moment. The caller retries.
        raise exception 'the row is gone' using errcode = 'serialization_failure';
    end if;
    o_format := known.format;
    if known.format <> 1 then
        o_status := 'format';
    elsif known.version = p_version then
        perform {s}.rg_touch();
    elsif known.until > p_now then
        o_status := 'present';
        o_row_version := known.version;
        o_until := known.until;
        o_bytes := known.bytes;
    else
        update {s}.part_row set version = p_version, until = p_until, bytes = p_bytes
            where space = p_space and key = p_key;
    end if;
end
$$;

create function {s}.rg_row_swap(
    p_known bytea, p_space integer, p_key bytea, p_expected bytea, p_version bytea, p_until bigint, p_bytes bytea,
    out o_status text, out o_format smallint, out o_row_version bytea, out o_until bigint, out o_bytes bytea
) language plpgsql as $$
declare
    known {s}.part_row%rowtype;
begin
    perform {s}.rg_begin(p_known, true);
    select * into known from {s}.part_row where space = p_space and key = p_key for update;
    if not found then
        o_status := 'none';
        return;
    end if;
    o_format := known.format;
    if known.format <> 1 then
        o_status := 'format';
    elsif known.version = p_version then
        perform {s}.rg_touch();
        o_status := 'swapped';
    elsif known.version <> p_expected then
        o_status := 'changed';
        o_row_version := known.version;
        o_until := known.until;
        o_bytes := known.bytes;
    else
        update {s}.part_row set version = p_version, until = p_until, bytes = p_bytes
            where space = p_space and key = p_key;
        o_status := 'swapped';
    end if;
end
$$;

create function {s}.rg_row_remove(
    p_known bytea, p_space integer, p_key bytea, p_expected bytea,
    out o_status text, out o_format smallint, out o_removed boolean
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'removed';
    delete from {s}.part_row
        where space = p_space and key = p_key and format = 1 and (p_expected is null or version = p_expected);
    o_removed := found;
    if o_removed then
        update {s}.part_row_count set rows = rows - 1 where space = p_space and share = {s}.rg_row_share(p_key);
        return;
    end if;
    select format into o_format from {s}.part_row where space = p_space and key = p_key and format <> 1;
    if found then
        o_status := 'format';
    end if;
end
$$;

-- Removes rows that have ended, and returns their number. The counters are locked in the order of their shares, so that
-- two sweeps do not wait for each other. The caller has locked no counter.
create function {s}.rg_row_take_ended(p_space integer, p_now bigint, p_limit integer) returns bigint
language plpgsql as $$
declare
    gone record;
    removed bigint := 0;
begin
    for gone in
        with ended as (
            delete from {s}.part_row where space = p_space and key in (
                select key from {s}.part_row where space = p_space and until <= p_now
                    order by until limit p_limit for update skip locked
            ) returning key
        )
        select {s}.rg_row_share(key) as share, count(*) as number from ended group by 1 order by 1
    loop
        update {s}.part_row_count set rows = rows - gone.number where space = p_space and share = gone.share;
        removed := removed + gone.number;
    end loop;
    return removed;
end
$$;

create function {s}.rg_row_sweep(
    p_known bytea, p_space integer, p_now bigint, p_limit integer, out o_status text, out o_removed bigint
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'swept';
    o_removed := {s}.rg_row_take_ended(p_space, p_now, p_limit);
end
$$;

-- Returns the keys after a given key, in order.
create function {s}.rg_row_keys(p_known bytea, p_space integer, p_after bytea, p_limit integer)
    returns table (o_status text, o_key bytea) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    return query select 'key', key from {s}.part_row
        where space = p_space and (p_after is null or key > p_after) order by key limit p_limit;
end
$$;
