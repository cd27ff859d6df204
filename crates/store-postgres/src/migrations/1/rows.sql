-- The records of the relay.

create function {s}.rg_relay_load(
    p_known bytea, p_id bytea, out o_status text, out o_version smallint, out o_record bytea
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
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
    perform {s}.rg_begin(p_known, true);
    o_status := 'inserted';
    insert into {s}.relay values (p_id, 1, p_op, p_mark, p_until, p_record) on conflict (id) do nothing;
    if found then
        return;
    end if;
    select * into known from {s}.relay where id = p_id for update;
    if not found then
        -- The record was removed at this very moment. The caller retries.
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
    perform {s}.rg_begin(p_known, true);
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
    perform {s}.rg_begin(p_known, true);
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
    perform {s}.rg_begin(p_known, true);
    o_status := 'swept';
    delete from {s}.relay where id in (
        select id from {s}.relay where until <= p_now order by until limit p_limit for update skip locked
    );
    get diagnostics o_removed = row_count;
end
$$;

-- Returns the ids after a given id, in order. A copy of the store uses it while no gate runs, and so do lists of
-- API keys.
create function {s}.rg_relay_ids(p_known bytea, p_after bytea, p_limit integer) returns table (o_status text, o_id bytea) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    return query select 'id', id from {s}.relay where p_after is null or id > p_after order by id limit p_limit;
end
$$;
